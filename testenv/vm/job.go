package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A Job is what the virtual machine does between boot and power-off.
type Job struct {
	Release string   // of the kernel, for lib/modules
	Modules string   // the host directory with the modules
	Suite   string   // the Debian suite of the userland, or empty for the host's
	Root    string   // the host directory with that userland, or empty
	Dir     string   // working directory
	Out     string   // directory shared for writing, or empty
	Keep    []string // directories that must stay visible, wherever they are
	Env     []string
	Steps   []Step
	Verbose bool
}

// A Step is one program. Package is set if the program is a compiled test.
type Step struct {
	Package string `json:",omitempty"`
	Dir     string
	Args    []string
}

func newJob(o options, k Kernel, userland string) (Job, error) {
	dir, err := os.Getwd()
	if err != nil {
		return Job{}, err
	}
	job := Job{
		Release: k.Release,
		Modules: k.Modules,
		Suite:   o.suite,
		Root:    userland,
		Dir:     dir,
		Out:     o.out,
		Keep:    []string{dir, k.Modules},
		Env:     carriedEnv(os.Environ()),
		Verbose: o.verbose,
	}
	job.Env = append(job.Env, "LANYARD_VM="+o.series, "LANYARD_SUITE="+o.suite)
	if o.out != "" {
		job.Env = append(job.Env, "LANYARD_OUT="+o.out)
	}
	return job, nil
}

// carriedEnv returns the environment variables that a program in the virtual machine may depend on.
// The others describe the host's session and would mislead it.
func carriedEnv(environ []string) []string {
	var env []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ":
			env = append(env, kv)
		default:
			if strings.HasPrefix(name, "LANYARD_") || strings.HasPrefix(name, "GO") {
				env = append(env, kv)
			}
		}
	}
	return env
}

// guestJob runs the steps and reports their results. It is a child of init, so that init can reap
// orphans while guestJob waits for its own children.
func guestJob() int {
	var job Job
	file := os.NewFile(3, jobFile)
	if err := json.NewDecoder(file).Decode(&job); err != nil {
		fmt.Fprintln(os.Stderr, "vm: read job:", err)
		return exitMachine
	}
	file.Close()
	// exec looks up programs in the PATH that was carried over.
	for _, kv := range job.Env {
		name, value, _ := strings.Cut(kv, "=")
		os.Setenv(name, value)
	}
	if len(job.Steps) == 1 && job.Steps[0].Package == "" {
		return runStep(job, job.Steps[0], os.Stdout)
	}
	code := 0
	for _, s := range job.Steps {
		if !runTest(job, s, os.Stdout) {
			code = 1
		}
	}
	return code
}

// outputDelay is how long the output of a step is read after its end, if another process still has
// the output open.
const outputDelay = 2 * time.Second

// runStep runs a program and returns its exit status as a shell does.
func runStep(job Job, s Step, out io.Writer) int {
	cmd := exec.Command(s.Args[0], s.Args[1:]...)
	cmd.Dir = s.Dir
	cmd.Env = job.Env
	// Not the port itself: /dev/stdout would open it a second time, which fails.
	cmd.Stdout = struct{ io.Writer }{out}
	cmd.Stderr = cmd.Stdout
	cmd.WaitDelay = outputDelay
	err := cmd.Run()
	if state := cmd.ProcessState; state != nil {
		if code := state.ExitCode(); code >= 0 {
			return code
		}
		fmt.Fprintf(out, "vm: %s: %s\n", s.Args[0], state)
		return 128 + int(state.Sys().(syscall.WaitStatus).Signal())
	}
	fmt.Fprintln(out, "vm:", err)
	if errors.Is(err, exec.ErrNotFound) {
		return 127
	}
	return 126
}
