// Bench measures what an attach costs, and compares it with programs that attach without looking at
// the wire: CNI's macvlan with host-local, netavark, and a bare Go program that makes the same
// link. All are real processes, run in turn in one network namespace that stands for the host, with
// a gateway behind its trunks. Only the ratios between them carry over to another machine.
//
//	make bench            # everything, under a quarter of an hour
//	make bench QUICK=1    # under four minutes
//	make bench-check      # the quick bench, against the committed baseline
//
// Everything happens in namespaces of its own, mounts included, which end with it. It needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// inWorld is set in the environment of the process that is in its own namespaces.
const inWorld = "LANYARD_BENCH_IN_WORLD"

// options are the program's flags.
type options struct {
	bin      string // directory of the programs under test
	out      string // directory of the results
	quick    bool
	only     string // subjects, separated by commas; "" for all
	check    string // baseline to compare with
	versus   string // another build of the hook
	netavark string // the program
	fetch    bool
	docs     string // directory with README.md and docs
}

func run(args []string) error {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&o.bin, "bin", "bin", "`directory` of lanyard-hook and the bench's own programs")
	fs.StringVar(&o.out, "out", "", "`directory` that gets latest.json, latest.md and latest.svg")
	fs.StringVar(&o.docs, "docs", "", "`directory` of README.md and docs, with tables to fill in")
	fs.BoolVar(&o.quick, "quick", false, "fewer runs, and no growth curves")
	fs.StringVar(&o.only, "only", "",
		"`subjects` to measure: attach, steps, runc, crowd, frames, throughput, claims, docker, dhcp, vlans, atonce, growth")
	fs.StringVar(&o.versus, "versus", "", "`file` of another build of lanyard-hook, measured in the same turns")
	fs.StringVar(&o.netavark, "netavark", "/usr/lib/podman/netavark", "`file` of this machine's netavark")
	fs.BoolVar(&o.fetch, "fetch", false,
		"download the programs of Debian "+peerSuite+" into the directory of -bin, and nothing else")
	fs.StringVar(&o.check, "check", "", "`file` of an earlier run; fail if a ratio is worse by more than its margin")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if o.fetch {
		return fetchPeers(context.Background(), o.bin)
	}
	if os.Getenv(inWorld) == "" {
		return enter(args)
	}
	return measureAll(o)
}

// enter runs the program again in its own network and mount namespaces, so that it cannot change
// the machine's.
func enter(args []string) error {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), inWorld+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	err := cmd.Run()
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("make namespaces (needs root): %w", err)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(1) // it has printed the reason
	}
	return err
}
