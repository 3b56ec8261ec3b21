package main

import (
	"slices"
	"strings"
	"testing"
)

// TestNativeTests checks that -skip-native leaves out the tests of files without the tag vm, and
// packages without others.
func TestNativeTests(t *testing.T) {
	all, err := listTests(t.Context(), tags, []string{labs + "/vm", labs + "/matrix"})
	if err != nil {
		t.Fatal(err)
	}
	rest, names, err := nativeTests(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	if len(rest) != 1 || rest[0].ImportPath != labs+"/matrix" {
		t.Errorf("packages with other tests: %+v", rest)
	}
	matrix := names[labs+"/matrix"]
	if !slices.Contains(names[labs+"/vm"], t.Name()) || slices.Contains(matrix, "TestMatrix") || len(matrix) == 0 {
		t.Errorf("native tests are %s", strings.Join(matrix, ", "))
	}
}
