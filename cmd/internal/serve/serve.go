// Package serve runs the service process: its lock, its socket, the protocol with systemd, and the
// tasks in the background: sweeps, renewals, the session in a shared store of leases, announcements,
// and the watch on Docker. Package service answers the callers.
package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/cmd/internal/engines"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/attach"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/service"
	"github.com/lanyard-net/lanyard/internal/wiring"
)

// Options are the settings of a service.
type Options struct {
	Paths wiring.Paths
	Log   *slog.Logger
	Sweep time.Duration // the interval of sweep
	// Docker is a dockerd. Its containers are checked when they start. The zero value: no dockerd.
	Docker engines.Docker
	// Tasks are further tasks, which run until their context ends, and only while the service has its
	// lock: a second service that is refused must not touch what they have opened.
	Tasks []func(context.Context)
}

// Run serves until ctx ends, and then finishes the requests in progress. It returns
// hook.ErrUnprivileged if the process may not change the host's network.
func Run(ctx context.Context, o Options) error {
	l, err := wiring.OpenPrivileged(o.Paths)
	if err != nil {
		return err
	}
	defer l.Close()
	l.Log, l.ServiceRenews = o.Log, func() bool { return true }
	l.Detached = func(a *hook.Attachment) {
		o.Log.With(a.LogAttrs()...).Info("detached", "addresses", a.Addrs, "mac", a.MAC, "uid", a.Owner)
	}
	locked, err := lock(o.Paths.Run)
	if err != nil {
		return err
	}
	defer locked.Close()
	if err := link.PinNetns(o.Paths.Guards); err != nil {
		return err
	}
	guards, err := l.Host.OpenNetnsPath(o.Paths.Guards)
	if err != nil {
		return err
	}
	defer guards.Close()
	listener, err := listen(o.Paths.Socket)
	if err != nil {
		return err
	}
	background, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	tasks.Go(func() { sweep(background, l.Local, o) })
	tasks.Go(func() { mirror(background, guards, o) })
	tasks.Go(func() { watchDocker(background, l.Local, o) })
	tasks.Go(func() { keepLeases(background, l, o) })
	tasks.Go(func() { announceMoved(background, l.Local, o) })
	tasks.Go(func() { l.RenewLeases(background) })
	for _, task := range o.Tasks {
		tasks.Go(func() { task(background) })
	}
	o.Log.Info("serving", "socket", o.Paths.Socket)
	notify("READY=1")
	s := &service.Server{
		Root: l.Local, Host: l.Admin, Users: l.Local,
		Networks: o.Paths.Networks, AllowList: network.NewAllowList(o.Paths.Networks),
		RootFailures: service.Kept(o.Paths.Failures()),
		Log:          o.Log,
	}
	err = s.Serve(ctx, listener)
	notify("STOPPING=1")
	cancel()
	tasks.Wait()
	return err
}

// Prepare creates the namespace for guarded attachments and mounts it at p.Guards. A
// service with a mount namespace of its own runs this outside of it, because the mount
// must outlive the service.
func Prepare(p wiring.Paths) error {
	if err := os.MkdirAll(p.Run, 0o755); err != nil {
		return err
	}
	return link.PinNetns(p.Guards)
}

// lock prevents a second service on the same socket. The kernel releases the lock when the
// file is closed or the process ends.
func lock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "service.lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another \"lanyard serve\" is running (it holds %s): to give lanyard.service options, "+
				"such as --web, see lanyard-serve(1)", f.Name())
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return f, nil
}

// mirror copies the carrier state of the parents to the interfaces of guarded containers.
func mirror(ctx context.Context, guards *link.Netns, o Options) {
	for ctx.Err() == nil {
		if err := guards.MirrorCarriers(ctx); err != nil {
			o.Log.Error("cannot mirror carriers", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

// sweep frees what killed hooks, a killed service and vanished containers left: once at the
// start, and then every o.Sweep.
func sweep(ctx context.Context, l *attach.Local, o Options) {
	tick := time.NewTicker(o.Sweep)
	defer tick.Stop()
	for {
		swept, err := l.Sweep(ctx)
		for _, a := range swept {
			o.Log.With(a.LogAttrs()...).Info("swept", "addresses", a.Addrs, "uid", a.Owner, "state", a.State)
		}
		if err != nil && ctx.Err() == nil {
			o.Log.Error("sweep failed", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
