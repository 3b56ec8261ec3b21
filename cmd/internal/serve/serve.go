// Package serve is the broker as a process: its lock, its socket, the systemd
// that may stand behind it, and the sweeping beside it. What callers are answered
// is package broker's.
package serve

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/cmd/internal/wiring"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/broker"
	"github.com/lanyard-net/lanyard/hook/link"
)

// Options of a broker.
type Options struct {
	Paths wiring.Paths
	Log   *slog.Logger
	Sweep time.Duration // between looks for what vanished containers left
}

// Run serves until ctx ends, and then finishes what is under way.
func Run(ctx context.Context, o Options) error {
	l, err := wiring.OpenPrivileged(o.Paths)
	if err != nil {
		return err
	}
	defer l.Close()
	l.Log = o.Log
	alone, err := lock(o.Paths.Run)
	if err != nil {
		return err
	}
	defer alone.Close()
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
	aside, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	beside.Go(func() { sweep(aside, l.Local, o) })
	beside.Go(func() { mirror(aside, guards, o) })
	o.Log.Info("serving", "socket", o.Paths.Socket)
	notify("READY=1")
	err = (&broker.Server{Local: l.Local, Log: o.Log}).Serve(ctx, listener)
	notify("STOPPING=1")
	cancel()
	beside.Wait()
	return err
}

// Prepare makes the namespace for guarded attachments. A service that is confined
// to mounts of its own has it made from outside: it is to outlive the service.
func Prepare(p wiring.Paths) error {
	if err := os.MkdirAll(p.Run, 0o755); err != nil {
		return err
	}
	return link.PinNetns(p.Guards)
}

// lock keeps a second broker from the same socket. It ends with the process.
func lock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "broker.lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another \"lanyard serve\" runs already (lock %s): %w", f.Name(), err)
	}
	return f, nil
}

// mirror tells guarded containers of their parents' carriers.
func mirror(ctx context.Context, guards *link.Netns, o Options) {
	for ctx.Err() == nil {
		if err := guards.MirrorCarriers(ctx); err != nil {
			o.Log.Error("carriers", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

// sweep takes back what killed hooks, a killed broker and vanished containers
// left: at once, and then again and again.
func sweep(ctx context.Context, l *hook.Local, o Options) {
	tick := time.NewTicker(o.Sweep)
	defer tick.Stop()
	for {
		swept, err := l.Sweep(ctx)
		for _, a := range swept {
			o.Log.Info("swept", "network", a.Network, "interface", a.Interface, "addresses", a.Addrs, "uid", a.Owner, "attachment", a.ID, "state", a.State)
		}
		if err != nil && ctx.Err() == nil {
			o.Log.Error("sweep", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
