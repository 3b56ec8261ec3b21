// Package stage carries out one stage of an OCI hook, or one command of a plugin, in this process.
// lanyard-attach uses it.
package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/oci"
	"github.com/lanyard-net/lanyard/hook/service"
	"github.com/lanyard-net/lanyard/hook/service/wire"
	"github.com/lanyard-net/lanyard/internal/wiring"
)

// Options are the settings of Run.
type Options struct {
	Paths   wiring.Paths
	Stage   string // one of oci.Stages
	Timeout time.Duration
	Stdin   io.Reader // the container's state
	Stderr  io.Writer // for warnings and the trace
}

// Run carries out the stage. The error is one line of bounded length. If it has not returned [wire.Grace]
// after the timeout, it calls expire with an error: some operations ignore the context, such as
// reading a stdin that is never closed. The sweep removes what is on record then.
func Run(ctx context.Context, o Options, expire func(error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, o.Timeout, fmt.Errorf("not done after %s (--timeout)", o.Timeout))
	defer cancel()
	defer time.AfterFunc(o.Timeout+wire.Grace, func() { expire(context.Cause(ctx)) }).Stop()
	state, err := oci.ReadState(o.Stdin)
	if err != nil {
		return err
	}
	run := &run{Options: o, notes: new(strings.Builder)}
	defer run.close()
	h := oci.Hook{
		Stage: o.Stage, State: state, Networks: o.Paths.Networks, Names: o.Paths.Names(), Trace: newTrace(), Open: run.open,
	}
	err = h.Run(ctx)
	fmt.Fprint(o.Stderr, h.Trace)
	if err == nil {
		fmt.Fprint(o.Stderr, run.notes)
		return nil
	}
	if run.notes.Len() > 0 {
		err = errors.Join(err, errors.New(strings.TrimSpace(run.notes.String())))
	}
	run.keep(state.ID, err)
	return errors.New(oci.Line(err))
}

// run is a stage with what it has opened.
type run struct {
	Options
	notes  *strings.Builder // log messages, such as: a damaged database was moved to another name
	opened io.Closer        // nil if nothing
}

func (r *run) open() (hook.Attacher, error) {
	a, c, err := wiring.Attacher(r.Paths, slog.New(slog.NewTextHandler(r.notes, nil)))
	r.opened = c
	return a, err
}

func (r *run) close() {
	if r.opened != nil {
		_ = r.opened.Close()
	}
}

// keepTime is the deadline for sending a message to the service.
const keepTime = time.Second

// keep leaves the error for "lanyard why": crun sends a hook's stderr to /dev/null. A user's
// error goes to the service. Root's goes to a directory, because root's containers need no
// service.
func (r *run) keep(id string, why error) {
	// Errors of Add and Tell are ignored: the caller reports why, which matters more.
	if netns.HostsRoot() {
		_ = service.Kept(r.Paths.Failures()).Add(id, oci.Line(why))
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), keepTime)
	defer cancel()
	_ = service.Client{Socket: r.Paths.Socket}.Tell(ctx, id, oci.Line(why))
}

// newTrace returns a trace if LANYARD_TRACE=1, else nil.
func newTrace() *hook.Trace {
	if os.Getenv("LANYARD_TRACE") != "1" {
		return nil
	}
	t := hook.NewTrace()
	// The start time of a process has a resolution of 10 ms (proc_pid_stat(5)). The CPU time
	// used so far is more precise.
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) == nil {
		t.Steps = append(t.Steps, hook.Step{Name: "start", Took: time.Duration(u.Utime.Nano() + u.Stime.Nano())})
	}
	return t
}
