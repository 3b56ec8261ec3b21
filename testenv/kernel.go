package testenv

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
)

// InSuite skips a test unless the virtual machine has the userland of one of the Debian suites. If
// -run selects tests, another userland is an error.
func InSuite(t *testing.T, suites ...string) {
	t.Helper()
	if slices.Contains(suites, os.Getenv("LANYARD_SUITE")) {
		return
	}
	need := "needs SUITE=" + strings.Join(suites, " or ")
	if flag.Lookup("test.run").Value.String() != "" {
		t.Fatal(need)
	}
	t.Skip(need)
}

// ByName skips a test unless -run selects tests. It is for tests that take minutes, of which CI has
// few, or that need a large program, which CI does not install.
func ByName(t *testing.T) {
	t.Helper()
	if flag.Lookup("test.run").Value.String() == "" {
		t.Skip("runs only with -run: it takes minutes, or needs a large program")
	}
}

// OnOneKernel skips a test on all kernels of the virtual machine but one, such as "6.12". It is for
// expensive tests: podman, systemd, 4,094 links and 64 concurrent hooks take minutes of an emulated
// processor, and use nothing of the kernel that other tests do not try on each kernel. Outside of
// the virtual machine, and where -run selects tests, the test runs on every kernel.
func OnOneKernel(t *testing.T, series string) {
	t.Helper()
	if here := unselected(); here != "" && here != series {
		t.Skipf("runs only on %s, or with -run", series)
	}
}

// OneRuntime returns both runtimes, or that of this kernel where all tests run in the virtual machine.
// It is for tests of podman, which take half a minute with each, where other tests try the other one.
func OneRuntime(of map[string]string) []string {
	if runtime, has := of[unselected()]; has {
		return []string{runtime}
	}
	return []string{"runc", "crun"}
}

// OutsideOfVM skips a test in the virtual machine, unless -run selects tests. It is for tests that try
// what this machine's kernel shows as well, such as kills and races of processes.
func OutsideOfVM(t *testing.T) {
	t.Helper()
	if unselected() != "" {
		t.Skip("runs only outside of the virtual machine, or with -run")
	}
}

// unselected returns the kernel series of the virtual machine in which all tests run; "" outside of it,
// and where -run selects tests.
func unselected() string {
	if flag.Lookup("test.run").Value.String() != "" {
		return ""
	}
	return os.Getenv("LANYARD_VM")
}
