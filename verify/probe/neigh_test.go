package probe

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/testenv"
)

// TestForged checks that messages of another process in the namespace, which needs only
// CAP_NET_ADMIN to write to the sockets, are not believed.
func TestForged(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.1")
	ns := testenv.NewNamespace(t, "container")
	err := ns.Do(func() error {
		table, err := OpenTable(1, ether.MAC{}, nil)
		if err != nil {
			return err
		}
		forger, err := openRoute(0)
		if err != nil {
			return err
		}
		defer unix.Close(forger)
		to, err := unix.Getsockname(table.events)
		if err != nil {
			return err
		}
		// The kernel's form of an entry with a MAC.
		message := neigh{ifindex: 1, addr: addr, state: unix.NUD_REACHABLE}.request(unix.RTM_NEWNEIGH, 0)
		message = append(message, 10, 0, unix.NDA_LLADDR, 0, 0x0a, 0, 0, 0, 0, 1, 0, 0)
		message[0] = byte(len(message))
		if n, ok := parseNeigh(message[unix.SizeofNlMsghdr:]); !ok || n.addr != addr || n.mac.IsZero() || n.ifindex != 1 {
			t.Errorf("the forged message is invalid: %+v", n)
		}
		if err := unix.Sendto(forger, message, 0, to); err != nil {
			return err
		}
		if _, err := receive(table.events, table.buf); !errors.Is(err, errForged) {
			t.Errorf("forged message: %v, want %v", err, errForged)
		}
		return table.closeAll()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// FuzzParseNeigh checks that the parser accepts or rejects every message without a panic.
func FuzzParseNeigh(f *testing.F) {
	for _, addr := range []string{"192.0.2.1", "fd50::1"} {
		n := neigh{ifindex: 7, addr: netip.MustParseAddr(addr), state: unix.NUD_STALE}
		message := n.request(unix.RTM_NEWNEIGH, 0)[unix.SizeofNlMsghdr:]
		f.Add(message)
		f.Add(append(message, 10, 0, unix.NDA_LLADDR, 0, 0x0a, 0, 0, 0, 0, 1, 0, 0))
		f.Add(append(message, 3, 0, unix.NDA_LLADDR, 0))
		f.Add(message[:11])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, ok := parseNeigh(b); ok && !n.addr.IsValid() {
			t.Fatalf("no address in %+v", n)
		}
	})
}
