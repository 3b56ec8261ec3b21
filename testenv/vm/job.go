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

// A Job is what the machine does, from the end of its boot to its power-off.
type Job struct {
	Release string   // kernel, for lib/modules
	Modules string   // where this machine keeps them
	Dir     string   // working directory
	Out     string   // directory shared for writing, or empty
	Keep    []string // directories that must stay in sight, wherever they are
	Env     []string
	Steps   []Step
	Verbose bool
}

// A Step is one program. Package is set where the program is a compiled test.
type Step struct {
	Package string `json:",omitempty"`
	Dir     string
	Args    []string
}

func newJob(o options, k Kernel) (Job, error) {
	dir, err := os.Getwd()
	if err != nil {
		return Job{}, err
	}
	job := Job{
		Release: k.Release,
		Modules: k.Modules,
		Dir:     dir,
		Out:     o.out,
		Keep:    []string{dir, k.Modules},
		Env:     carriedEnv(os.Environ()),
		Verbose: o.verbose,
	}
	job.Env = append(job.Env, "LANYARD_VM="+o.series)
	if o.out != "" {
		job.Env = append(job.Env, "LANYARD_OUT="+o.out)
	}
	return job, nil
}

// carriedEnv picks what a program inside may depend on; the rest is about this
// machine's session and would mislead it.
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

// guestJob runs the steps and reports their outcome. It is a child of init's,
// so that init can reap whatever is left to it while this waits for its own.
func guestJob() int {
	var job Job
	file := os.NewFile(3, jobFile)
	if err := json.NewDecoder(file).Decode(&job); err != nil {
		fmt.Fprintln(os.Stderr, "vm: read job:", err)
		return exitMachine
	}
	file.Close()
	// Programs are looked up by the path that was carried in.
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

// lingering is how long a step's output is read after the step itself has ended
// and something that it left behind holds the other end.
const lingering = 2 * time.Second

// runStep runs a program and returns its exit status as a shell would.
func runStep(job Job, s Step, out io.Writer) int {
	cmd := exec.Command(s.Args[0], s.Args[1:]...)
	cmd.Dir = s.Dir
	cmd.Env = job.Env
	// Not the port itself: it cannot be opened twice, as /dev/stdout would do.
	cmd.Stdout = struct{ io.Writer }{out}
	cmd.Stderr = cmd.Stdout
	cmd.WaitDelay = lingering
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
