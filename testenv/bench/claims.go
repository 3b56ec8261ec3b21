package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// Names of the series of claims. Each claim is a process of its own.
const (
	subjClaim = "claim an address"
	hostLocal = "host-local"
	// claimNet is the name of the pool in host-local's files.
	claimNet = "web"
)

// claims measures what an address costs while others are held: with lanyard's store, in a process
// that does nothing else, and with CNI's host-local.
func claims(w *world, o options, r *results) error {
	sizes, runs := []int{0, 50_000, 1_000_000}, 60
	if o.quick {
		sizes, runs = sizes[:2], 8
	}
	type claimer struct {
		name string
		one  func(n int) invocation
	}
	var all []claimer
	for _, size := range sizes {
		db := filepath.Join(state, fmt.Sprintf("claims-%d.db", size))
		defer os.Remove(db)
		if size > 0 {
			if _, err := w.claim(db, "held", "-fill", fmt.Sprint(size)).run(); err != nil {
				return err
			}
		}
		all = append(all, claimer{claimName(size), func(n int) invocation { return w.claim(db, fmt.Sprint("new", n)) }})
	}
	const held = 50_000
	dir := filepath.Join(state, "host-local")
	defer os.RemoveAll(dir)
	if err := fillHostLocal(dir, held); err != nil {
		return err
	}
	all = append(all, claimer{fmt.Sprintf("%s, %d held", hostLocal, held),
		func(n int) invocation { return w.hostLocal(dir, n) }})
	took := make([][]sample, len(all))
	for n := range runs + 1 {
		for k := range all {
			i := (k + n) % len(all)
			s, err := all[i].one(n).run()
			if err != nil {
				return fmt.Errorf("%s: %w", all[i].name, err)
			}
			if n > 0 { // the first turn warms up
				took[i] = append(took[i], s)
			}
		}
	}
	grows := curve{Title: subjClaim, X: "leases in the pool", Name: "lanyard"}
	for i, c := range all {
		r.add(subjClaim, c.name, took[i])
		if i < len(sizes) {
			grows.Points = append(grows.Points, point{float64(sizes[i]), medianWall(took[i])})
		}
	}
	r.Curves = append(r.Curves, grows)
	for _, size := range sizes[1:] {
		r.compare(subjClaim, claimName(size), claimName(0), 1.3)
	}
	r.compare(subjClaim, claimName(held), all[len(all)-1].name, 1.0)
	return nil
}

func claimName(held int) string { return fmt.Sprintf("lanyard, %d held", held) }

func (w *world) claim(db, id string, flags ...string) invocation {
	return invocation{path: filepath.Join(w.bin, "bench-claim"), args: append(flags, db, id)}
}

// hostLocal runs CNI's address plugin alone, as a process.
func (w *world) hostLocal(dir string, n int) invocation {
	return invocation{
		path: filepath.Join(w.cniDir, "host-local"),
		stdin: mustJSON(map[string]any{
			"cniVersion": "1.0.0", "name": claimNet, "type": "macvlan",
			"ipam": map[string]any{"type": "host-local", "dataDir": dir, "subnet": "10.16.0.0/12"},
		}),
		env: []string{"CNI_COMMAND=ADD", fmt.Sprintf("CNI_CONTAINERID=new%d", n), "CNI_NETNS=" + w.gateway.path(),
			"CNI_IFNAME=eth0", "CNI_PATH=" + w.cniDir},
	}
}

// fillHostLocal makes the files in which host-local records holders: one for each address, with the
// holder's id, and the address given last.
func fillHostLocal(dir string, n int) error {
	dir = filepath.Join(dir, claimNet)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	a := netip.MustParseAddr("10.16.0.1")
	for i := range n {
		a = a.Next()
		if err := os.WriteFile(filepath.Join(dir, a.String()), []byte(fmt.Sprintf("held%d\r\neth0", i)), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "last_reserved_ip.0"), []byte(a.String()), 0o644)
}
