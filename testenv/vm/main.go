// Command vm runs a command inside a virtual machine that has a Debian kernel and this machine's
// files, or those of a Debian suite.
//
//	go run ./testenv/vm -kernel 6.1 -- ip -d link
//	go run ./testenv/vm -kernel 6.12 -tests ./...
//	go run ./testenv/vm -kernel 6.12 -suite trixie -- podman --version
//
// Development and CI machines often lack 8021q, bonding, dummy, ipvlan or bridge VLAN filtering,
// and often have no usable KVM. So the machine is emulated (QEMU's TCG). Its kernel is the package
// of a Debian suite, unpacked and never installed. Its root is this machine's root, read-only,
// under an overlay in memory: every program that is installed here is there as well, at the same
// path, and nothing that happens inside changes a file here. Only the directory of -out is shared
// for writing.
//
// With -suite, the root is that suite's userland instead: packages that mmdebstrap installs into a
// directory of the cache, once. This machine's root is then at /host, read-only, and the working
// directory has the same path inside.
//
// The machine has no network card. The command runs in it as root: it may load modules, mount
// filesystems and break anything.
//
// The exit status is that of the command; 124 when the time ran out, and 125 when the machine
// itself failed. (`go run` turns them all into 1: build the program if the status matters.)
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	exitTimeout = 124
	exitMachine = 125
)

func main() {
	switch filepath.Base(os.Args[0]) {
	case "init":
		os.Exit(guestInit())
	case "job":
		os.Exit(guestJob())
	}
	// The kernel kills QEMU when the thread that started it ends.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	code, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
	}
	os.Exit(code)
}

type options struct {
	series  string
	suite   string
	timeout time.Duration
	memory  int
	out     string
	tests   bool
	fetch   bool
	verbose bool
	perTest time.Duration
	pattern string
	native  *regexp.Regexp
}

func parse(args []string) (options, []string, error) {
	var o options
	fs := flag.NewFlagSet("vm", flag.ContinueOnError)
	fs.StringVar(&o.series, "kernel", "6.1", "kernel `series`: "+strings.Join(seriesKnown(), ", "))
	fs.StringVar(&o.suite, "suite", "",
		"Debian `suite` of the userland: "+strings.Join(suitesKnown, ", ")+" (default: this machine's own files)")
	fs.DurationVar(&o.timeout, "timeout", 10*time.Minute, "time after which the run is stopped")
	fs.IntVar(&o.memory, "memory", 2048, "memory of the machine in `MiB`")
	fs.StringVar(&o.out, "out", "", "`directory` that is writable inside, at the same path, which $LANYARD_OUT contains")
	fs.BoolVar(&o.tests, "tests", false,
		"compile the tests of the given packages with the tag vm (default: all that use testenv), and run them inside")
	fs.DurationVar(&o.perTest, "test-timeout", 35*time.Minute,
		"with -tests: time after which one package's tests are stopped")
	fs.StringVar(&o.pattern, "run", "", "with -tests: run only the tests that match `regexp`")
	native := fs.String("native", ".", "with -tests: of the tests that this machine's own kernel can run "+
		"(of files without the tag vm), run only those whose \"hook/link.TestName\" matches `regexp`")
	fs.BoolVar(&o.fetch, "fetch", false, "download the kernel and the suite's userland, and nothing else")
	fs.BoolVar(&o.verbose, "v", false, "show the kernel's console and, with -tests, every test")
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), "usage: vm [flags] -- CMD [ARG…]\n       vm [flags] -tests [PACKAGE…]\n")
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		return o, nil, err
	}
	var err error
	if o.native, err = regexp.Compile(*native); err != nil {
		return o, nil, fmt.Errorf("-native: %w", err)
	}
	if !o.tests && !o.fetch && fs.NArg() == 0 {
		fs.Usage()
		return o, nil, errors.New("no command given")
	}
	return o, fs.Args(), nil
}

func run(ctx context.Context, args []string) (int, error) {
	o, rest, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0, nil
	}
	if err != nil {
		return 2, err
	}
	kernel, err := findKernel(ctx, o.series)
	if err != nil {
		return exitMachine, fmt.Errorf("find kernel %q: %w", o.series, err)
	}
	var userland string
	if o.suite != "" {
		if userland, err = findSuite(ctx, o.suite); err != nil {
			return exitMachine, fmt.Errorf("find suite %q: %w", o.suite, err)
		}
	}
	if o.fetch {
		fmt.Println(kernel.Release)
		return 0, nil
	}
	scratch, err := os.MkdirTemp("", "lanyard-vm-")
	if err != nil {
		return exitMachine, err
	}
	defer os.RemoveAll(scratch)

	job, err := newJob(o, kernel, userland)
	if err != nil {
		return exitMachine, err
	}
	if o.tests {
		job.Steps, err = compileTests(ctx, scratch, rest, o)
		job.Keep = append(job.Keep, scratch)
	} else {
		job.Steps = []Step{{Dir: job.Dir, Args: rest}}
	}
	if err != nil {
		return exitMachine, err
	}
	return boot(ctx, o, kernel, job, scratch)
}
