//go:build failpoint && !vm

// An emulated machine is too slow for moments of milliseconds.

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// Settings of TestTorture: containers in a batch, and how many start and end at a time.
const tortureBatch, tortureWorkers = 64, 16

// torture is a LAN on which hooks, the service and containers are killed at any moment.
type torture struct {
	*brokered
	mu     sync.Mutex
	live   map[string]string // address → the container that has it, as its runtime knows
	counts map[string]int    // what has happened
}

// TestTorture starts and ends LANYARD_TORTURE containers, 16 at a time. A hook is killed at a random
// moment in one of four starts; the service at a random moment or at a step, some of them in each
// batch; in between it is down, and hooks attach without it; one of two containers ends without
// poststop. No address is given to two running containers, no running container loses its
// attachment, and after the last sweep nothing is left.
func TestTorture(t *testing.T) {
	n := 64
	if s := os.Getenv("LANYARD_TORTURE"); s != "" {
		var err error
		n, err = strconv.Atoi(s)
		must(t, err)
	}
	b, _ := lanBrokered(t, func(d *network.Definition) { d.ConflictWindow = network.Duration(10 * time.Millisecond) })
	before := b.Links(b.Host)
	x := &torture{brokered: b, live: map[string]string{}, counts: map[string]int{}}
	for first := 0; first < n; first += tortureBatch {
		t.Run(fmt.Sprint(first), func(t *testing.T) { x.batch(t, first, min(n, first+tortureBatch)) })
	}
	b.kill()
	b.start()
	b.sweep()
	b.awaitRecords(0) // the new service sweeps, too, at its start
	b.WantNothing("web", before)
	t.Logf("%v", x.counts)
}

func (w *world) sweep() {
	w.tb.Helper()
	must(w.tb, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Sweep(ctx)
		return err
	}))
}

// batch starts and ends the containers from first to end, while the service is killed.
func (x *torture) batch(t *testing.T, first, end int) {
	b := x.on(t)
	ids := make(chan int)
	var workers, killer sync.WaitGroup
	for range tortureWorkers {
		workers.Go(func() {
			for id := range ids {
				x.life(t, b, fmt.Sprintf("c%d", id))
			}
		})
	}
	stop := make(chan struct{})
	killer.Go(func() { x.killServices(b, stop) })
	for id := first; id < end; id++ {
		ids <- id
	}
	close(ids)
	workers.Wait()
	close(stop)
	killer.Wait()
	x.cmd = b.cmd // the last one
}

func (x *torture) count(what string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.counts[what]++
}

// killServices kills the service again and again. Each next one waits for a moment, or has a step at
// which it kills itself.
func (x *torture) killServices(b *brokered, stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(rand.IntN(400)) * time.Millisecond):
		}
		step := ""
		if rand.IntN(2) == 0 {
			step = hooklab.Failpoints[rand.IntN(len(hooklab.Failpoints))]
		}
		b.restartService(step)
		x.count("service killed")
	}
}

// restartService kills the service, if it has not killed itself, and starts the next after a pause.
func (b *brokered) restartService(step string) {
	b.tb.Helper()
	_ = b.cmd.Process.Kill() // it may have killed itself
	_ = b.cmd.Wait()         // "signal: killed" is expected
	time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
	b.startOnly("LANYARD_FAILPOINT=" + step) // which may kill itself at once
}

// life is the life of one container.
func (x *torture) life(t *testing.T, b *brokered, id string) {
	c := testenv.NewContainer(t)
	cmd, stderr := b.Command(hooklab.State(id, c.Pid, "network=web"), []string{"createRuntime"})
	if err := b.Host.Start(cmd); err != nil {
		t.Error(err)
		return
	}
	killed := rand.IntN(4) == 0
	if killed {
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		_ = cmd.Process.Kill() // it may have ended
	}
	switch err := cmd.Wait(); {
	case err == nil:
		x.hold(t, b, id)
	case !killed:
		t.Errorf("attach %s: %v: %s", id, err, stderr)
	default:
		x.count("hook killed")
	}
	if err := c.Kill(); err != nil {
		t.Error(err)
	}
	if rand.IntN(2) == 0 {
		x.count("poststop")
		if o := b.Run(hooklab.State(id, 0, "network=web"), []string{"poststop"}); o.Status != 0 {
			t.Errorf("detach %s: %+v", id, o)
		}
	}
	c.End(t)
}

// hold is the time of a container that has started.
func (x *torture) hold(t *testing.T, b *brokered, id string) {
	x.count("attached")
	rec, err := b.recordOf(id)
	if err != nil {
		t.Error(err)
		return
	}
	x.mu.Lock()
	for _, p := range rec.Addrs {
		if other := x.live[p.String()]; other != "" {
			t.Errorf("%s has been given to %s and to %s", p, other, id)
		}
		x.live[p.String()] = id
	}
	x.mu.Unlock()
	time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
	if rec.Interface != "eth0" {
		t.Errorf("the interface of %s is %s", id, rec.Interface)
	}
	if after, err := b.recordOf(id); err != nil || after.ID != rec.ID {
		t.Errorf("%s runs, and its attachment is %v, %v; it was %v", id, after.ID, err, rec.ID)
	}
	x.mu.Lock()
	for _, p := range rec.Addrs {
		delete(x.live, p.String())
	}
	x.mu.Unlock()
}

// recordOf returns the attachment of a container.
func (w *world) recordOf(id string) (rec hook.Attachment, err error) {
	err = w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		all, err := l.Attachments(ctx)
		for _, a := range all {
			if len(a.Containers) == 1 && a.Containers[0].ID == id && a.State == hook.Attached {
				rec = a
				return err
			}
		}
		if err == nil {
			err = fmt.Errorf("container %s has no attachment", id)
		}
		return err
	})
	return rec, err
}
