package main

import (
	"regexp"
	"slices"
	"testing"
)

// TestSelectNative checks that -native leaves out the tests of files without the tag vm that do not
// match, and packages without others.
func TestSelectNative(t *testing.T) {
	all, err := listTests(t.Context(), tags, []string{labs + "/vm", labs + "/matrix"})
	if err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[string]struct{ packages, here bool }{
		"^$":                                 {false, false},
		"^testenv/vm\\.Test.*Native$":        {true, true},
		"^testenv/(matrix|vm)\\.TestKernel$": {false, false},
		".":                                  {true, true},
	} {
		rest, skipped, err := selectNative(t.Context(), all, regexp.MustCompile(pattern))
		if err != nil {
			t.Fatal(err)
		}
		has := func(path string) bool {
			return slices.ContainsFunc(rest, func(p goPackage) bool { return p.ImportPath == path })
		}
		if !has(labs+"/matrix") || has(labs+"/vm") != want.packages {
			t.Errorf("%s: packages %+v", pattern, rest)
		}
		here := !slices.Contains(skipped[labs+"/vm"], t.Name())
		if here != want.here || slices.Contains(skipped[labs+"/matrix"], "TestMatrix") {
			t.Errorf("%s: skipped %v", pattern, skipped)
		}
	}
}
