package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Names of the series of a TCP stream, in GB/s.
const (
	withProgram    = "trunk with the program"
	withoutProgram = "trunk without"
	subjStream     = "TCP stream, GB/s"
)

// bareTrunk is a second trunk to the same gateway, which nobody watches.
const bareTrunk = "eth8"

// throughput sends a TCP stream from containers to the gateway, in short turns:
// over a trunk that is watched and one that is not, and through a guard.
func throughput(w *world, o options, r *results) error {
	turns := 60
	if o.quick {
		turns = 10
	}
	if err := w.startBroker(); err != nil {
		return err
	}
	if err := w.plugTo(bareTrunk, "eth1", bareGateway); err != nil {
		return err
	}
	all := []struct {
		contender
		to string
	}{
		{w.contenders()[0], gateway.String()},
		{contender{name: withoutProgram, attach: w.bareFloor}, bareGateway.Addr().String()},
		{contender{name: guarded, attach: w.hook("createRuntime"), detach: w.hook("poststop"), late: true, rootless: true}, gateway.String()},
	}
	all[0].name = withProgram
	took := make([][]float64, len(all))
	made := make([]*container, len(all))
	defer func() { endAll(made) }()
	for i, c := range all {
		var err error
		if made[i], err = w.newFor(c.contender); err != nil {
			return err
		}
		if _, err = c.attach(made[i]).run(); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	server, err := w.listen()
	if err != nil {
		return err
	}
	defer server.Close()
	for n := range turns + 1 {
		for k := range all {
			i := (k + n) % len(all)
			rate, err := stream(made[i], server, all[i].to, 200*time.Millisecond)
			if err != nil {
				return fmt.Errorf("%s: %w", all[i].name, err)
			}
			if n > 0 { // the first warms up
				took[i] = append(took[i], rate)
			}
		}
	}
	for i, c := range all {
		r.figure(subjStream, c.name, median(took[i])/1e9, "GB/s")
	}
	r.atLeast(subjStream+": with the program / without", took[0], took[1], 0.97)
	r.atLeast(subjStream+": guarded / direct", took[2], took[0], 0.9)
	for i, c := range all {
		if err := w.clear(c.contender, made[i:i+1]); err != nil {
			return err
		}
	}
	return netlink.LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: bareTrunk}})
}

// bareFloor is floor on the other trunk.
func (w *world) bareFloor(c *container) invocation {
	v := w.floor(c)
	v.args[1], v.args[2], v.args[3] = bareTrunk, bareGateway.Addr().Next().String()+"/24", bareGateway.Addr().String()
	return v
}

// listen listens in the gateway's namespace, on all its addresses.
func (w *world) listen() (l net.Listener, err error) {
	err = w.gateway.do(func() error {
		l, err = net.Listen("tcp4", "0.0.0.0:7777")
		return err
	})
	return l, err
}

// do runs f on a thread in the namespace, which ends with it.
func (c *container) do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		fd, err := unix.Open(c.path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// stream sends for a while, and gives bytes per second.
func stream(from *container, server net.Listener, to string, span time.Duration) (rate float64, err error) {
	var near net.Conn
	if err := from.do(func() (err error) {
		near, err = net.DialTimeout("tcp4", net.JoinHostPort(to, "7777"), 5*time.Second)
		return err
	}); err != nil {
		return 0, err
	}
	far, err := server.Accept()
	if err != nil {
		return 0, err
	}
	defer far.Close()
	go func() {
		defer near.Close()
		chunk := make([]byte, 128<<10)
		for end := time.Now().Add(span); time.Now().Before(end); {
			if _, err := near.Write(chunk); err != nil {
				return
			}
		}
	}()
	return receive(far, span/4)
}

// receive reads to the end, and gives bytes per second since the window had time to
// open.
func receive(from net.Conn, opening time.Duration) (float64, error) {
	chunk := make([]byte, 128<<10)
	var began time.Time
	count := 0
	for until := time.Now().Add(opening); ; {
		n, err := from.Read(chunk)
		if errors.Is(err, io.EOF) {
			return float64(count) / time.Since(began).Seconds(), nil
		}
		if err != nil {
			return 0, err
		}
		if !began.IsZero() {
			count += n
		} else if now := time.Now(); now.After(until) {
			began = now
		}
	}
}
