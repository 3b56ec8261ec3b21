package link

import (
	"fmt"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
)

// A namespace's nsid is valid while a process or descriptor holds the namespace, and soon
// after no longer: poststop depends on both.
func TestNumber(t *testing.T) {
	h := mustHost(t)
	cmd := mustContainer(t)
	n, err := h.OpenNetns(cmd.Process.Pid)
	must(t, err)
	id, err := h.Number(n)
	must(t, err)
	if again, err := h.Number(n); again != id || err != nil {
		t.Errorf("second call: %d, %v, want %d", again, err, id)
	}
	if other, err := h.Number(mustNetns(t, h)); other == id || err != nil {
		t.Errorf("another namespace's nsid is %d, %v", other, err)
	}
	wantNumbered(t, h, id)
	must(t, cmd.Process.Kill())
	cmd.Wait()
	wantNumbered(t, h, id) // n holds it
	n.Close()
	// A closed netlink socket releases the namespace after an RCU grace period.
	testenv.Eventually(t, "the namespace's end", func() error {
		exists, err := h.Numbered(id)
		if exists {
			err = fmt.Errorf("nsid %d is in use", id)
		}
		return err
	})
}

func wantNumbered(tb testing.TB, h *Host, id int) {
	tb.Helper()
	if exists, err := h.Numbered(id); !exists || err != nil {
		tb.Errorf("nsid %d is in use: %v, %v; want true", id, exists, err)
	}
}
