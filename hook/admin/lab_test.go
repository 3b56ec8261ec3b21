package admin_test

import (
	"testing"

	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

func TestMain(m *testing.M) { hooklab.Main(m) }

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
