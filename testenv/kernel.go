package testenv

import (
	"flag"
	"os"
	"testing"
)

// OnOneKernel leaves a test to one of the kernels where all tests are run, such as
// "6.12": podman, systemd and 4,094 links take minutes of an emulated processor, and
// ask of the kernel what other tests ask of each. Named by -run, it runs on any.
func OnOneKernel(t *testing.T, series string) {
	t.Helper()
	if flag.Lookup("test.run").Value.String() == "" && os.Getenv("LANYARD_VM") != series {
		t.Skipf("runs on %s, or where -run names it", series)
	}
}
