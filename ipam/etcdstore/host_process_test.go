//go:build !vm

package etcdstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/etcdstore"
)

// asHost makes the test binary run a host of TestHosts; its value is a job in JSON.
const asHost = "LANYARD_TEST_AS_HOST"

func TestMain(m *testing.M) {
	if text := os.Getenv(asHost); text != "" {
		var j job
		if err := json.Unmarshal([]byte(text), &j); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		j.run()
		os.Exit(0)
	}
	// The tests mostly wait, each for a cluster of its own.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// job is what a host process does: it claims, holds and releases addresses with several workers.
type job struct {
	Host      int
	Endpoints []string
	Seed      uint64
	Skew      time.Duration  // of the host's clock
	Share     []netip.Prefix // for outages; none for most hosts
	For       time.Duration
}

// contested is a pool with fewer addresses than all workers want.
var contested = ipam.Pool{Subnet: netip.MustParsePrefix("192.168.50.0/28"),
	Ranges: []netip.Prefix{netip.MustParsePrefix("192.168.50.8/29")}}

const workers = 3

// now returns the time of the clock that all processes share.
func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // the clock always exists
	}
	return t.Nano()
}

// hostProcess is the state of a host.
type hostProcess struct {
	job
	store  *etcdstore.Store
	mu     sync.Mutex
	out    *json.Encoder
	active map[string]holding // by owner, as records are: before the claim, with no address
	share  *ipam.Share        // nil: not confirmed
}

// holding is what a host's record of an owner has.
type holding struct {
	addr    netip.Addr
	pending bool // the store does not have it yet
	ending  bool // it is being released: no other owner of this host gets it, and it is not renewed
}

func (j job) run() {
	store, err := etcdstore.Open(etcdstore.Config{Endpoints: j.Endpoints, TTL: "2s"},
		etcdstore.Host{ID: fmt.Sprint(j.Host), Name: fmt.Sprint("host", j.Host)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	store.Now = func() time.Time { return time.Now().Add(j.Skew) }
	h := &hostProcess{job: j, store: store, out: json.NewEncoder(os.Stdout), active: map[string]holding{}}
	ctx, cancel := context.WithCancel(context.Background())
	var kept, working sync.WaitGroup
	kept.Go(func() { store.Keep(ctx, slog.New(slog.NewTextHandler(io.Discard, nil)), h.renew) })
	for i := range workers {
		working.Go(func() { h.work(i) })
	}
	working.Wait()
	cancel()
	kept.Wait()
	// A session that has ended, and that no other one follows, frees addresses, too.
	for range 10 {
		err := store.CheckSession(context.Background())
		if errors.Is(err, ipam.ErrNoSession) {
			h.emit(event{Kind: "session", Call: now(), End: now()})
		}
		if err == nil || errors.Is(err, ipam.ErrNoSession) {
			return
		}
	}
}

func (h *hostProcess) emit(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.Host = h.Host
	_ = h.out.Encode(e)
}

// set records what an owner has, unless another one of this host has the address: then it returns false.
func (h *hostProcess) set(owner string, a holding) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for other, has := range h.active {
		if other != owner && a.addr.IsValid() && has.addr == a.addr {
			return false
		}
	}
	h.active[owner] = a
	return true
}

// pool returns the pool without the addresses that are pending.
func (h *hostProcess) pool() ipam.Pool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := contested
	p.Reserved = map[netip.Addr]string{}
	for _, has := range h.active {
		if has.pending {
			p.Reserved[has.addr] = "pending"
		}
	}
	return p
}

// claimInShare takes an address of the host's share while etcd is out of reach.
func (h *hostProcess) claimInShare(owner string) (a netip.Addr, ok bool) {
	h.mu.Lock()
	share := h.share
	h.mu.Unlock()
	if share == nil {
		return a, false
	}
	for _, r := range share.Ranges {
		for a := r.Addr(); r.Contains(a); a = a.Next() {
			call := now()
			if share.Contains(a) && h.set(owner, holding{addr: a, pending: true}) {
				h.emit(event{Kind: "claim", Owner: owner, Addr: a.String(), Call: call, End: now(), Pending: true})
				return a, true
			}
		}
	}
	return a, false
}

func (h *hostProcess) lease(owner string) ipam.Lease {
	return ipam.Lease{Owner: ipam.Owner{Attachment: owner, Network: "web", Interface: "eth0"}, Name: owner}
}

// work claims an address, holds it for some time, and releases it, again and again.
func (h *hostProcess) work(worker int) {
	r := rand.New(rand.NewPCG(h.Seed, uint64(h.Host*workers+worker)))
	for n, end := 0, time.Now().Add(h.For); time.Now().Before(end); n++ {
		owner := fmt.Sprintf("%d-%d-%d", h.Host, worker, n)
		h.set(owner, holding{})
		a, err := h.claim(owner, r)
		if err != nil && !errors.Is(err, ipam.ErrTaken) && !errors.Is(err, ipam.ErrPoolFull) {
			if mine, ok := h.claimInShare(owner); ok {
				a, err = mine, nil
			}
		}
		if err == nil {
			<-time.After(time.Duration(r.IntN(30)) * time.Millisecond)
		} else {
			<-time.After(time.Duration(r.IntN(20)) * time.Millisecond)
		}
		h.set(owner, holding{addr: a, ending: true})
		h.release(owner, a, time.Duration(r.IntN(2))*50*time.Millisecond)
		h.mu.Lock()
		delete(h.active, owner)
		h.mu.Unlock()
	}
}

// claim claims the next address, or one by name.
func (h *hostProcess) claim(owner string, r *rand.Rand) (a netip.Addr, err error) {
	l, call, ctx := h.lease(owner), now(), context.Background()
	if len(h.Share) > 0 { // it need not wait long, and may leave a claim with an unknown end
		soon, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		ctx = soon
	}
	if r.IntN(4) == 0 {
		l.Addr = netip.AddrFrom4([4]byte{192, 168, 50, byte(8 + r.IntN(7))})
		a, err = l.Addr, h.store.Claim(ctx, pool, l)
	} else {
		a, err = h.store.Next(ctx, pool, h.pool(), l)
	}
	if err != nil {
		return netip.Addr{}, err // if it has an effect, that only keeps others out until the release
	}
	if !h.set(owner, holding{addr: a}) { // another worker got it from the share at this moment
		return netip.Addr{}, errors.New("it is pending")
	}
	h.emit(event{Kind: "claim", Owner: owner, Addr: a.String(), Call: call, End: now()})
	return a, nil
}

// release releases what an owner has until that succeeds.
func (h *hostProcess) release(owner string, a netip.Addr, quarantine time.Duration) {
	call := now()
	for give := time.Now().Add(30 * time.Second); ; {
		err := h.store.Release(context.Background(), pool, h.lease(owner).Owner, quarantine)
		if a.IsValid() && (err == nil || time.Now().After(give)) {
			e := event{Kind: "release", Owner: owner, Addr: a.String(), Call: call, End: now()}
			if err != nil {
				e.End = never
			}
			h.emit(e)
		}
		if err == nil || time.Now().After(give) {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
}

// renew does what Renew of package attach does with the records. A session begins after the first
// call with its store.
func (h *hostProcess) renew(ctx context.Context, in ipam.Shared) error {
	mine, err := in.Mine(ctx)
	if err != nil {
		return err
	}
	if in != ipam.Shared(h.store) {
		h.emit(event{Kind: "session", Call: now(), End: now()})
	}
	h.mu.Lock()
	active := map[string]holding{}
	for owner, a := range h.active {
		active[owner] = a
	}
	h.mu.Unlock()
	for _, l := range mine[pool] {
		owner := l.Owner.Attachment
		if _, known := active[owner]; !known {
			h.release(owner, l.Addr, time.Second)
		}
	}
	for owner, a := range active {
		if !a.addr.IsValid() || a.ending {
			continue
		}
		l, call := h.lease(owner), now()
		l.Addr = a.addr
		claim := in.Claim
		if a.pending {
			claim = in.Confirm
		}
		if err := claim(ctx, pool, l); err == nil {
			h.confirmed(owner, event{Kind: "claim", Owner: owner, Addr: a.addr.String(), Call: call})
		} else if !errors.Is(err, ipam.ErrTaken) {
			return err
		}
	}
	if len(h.Share) == 0 {
		return nil
	}
	share, err := in.Reserve(ctx, pool, h.Share)
	if err == nil {
		h.mu.Lock()
		h.share = &share
		h.mu.Unlock()
	}
	return err
}

// confirmed notes that the store has what an owner has. If that was released by now, no container uses
// the address: the next renewal releases it again.
func (h *hostProcess) confirmed(owner string, e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if has, ok := h.active[owner]; ok && !has.ending {
		h.active[owner] = holding{addr: has.addr}
		e.Host, e.End = h.Host, now()
		_ = h.out.Encode(e)
	}
}
