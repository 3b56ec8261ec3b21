package verify

import (
	"context"
	"testing"
	"time"
)

// pingFunc reports whether packet number n, of size bytes, is answered.
type pingFunc func(n, size int) bool

func (f pingFunc) Close() error { return nil }

// counted answers as f says, and counts the packets.
type counted struct {
	pingFunc
	n int
}

func (c *counted) Ping(_ context.Context, size int, _ time.Duration) (p Pong, err error) {
	c.n++
	if c.pingFunc(c.n, size) {
		p.Size = size
	}
	return p, nil
}

// TestMeasureMTU checks the search where the loss of packets must be the same in each run. Package
// verify/probe measures real paths.
func TestMeasureMTU(t *testing.T) {
	for name, c := range map[string]struct {
		answers pingFunc
		want    PathMTU
	}{
		"jumbo":    {func(_, size int) bool { return size <= 8000 }, PathMTU{Size: 9000, Passes: 8000}},
		"one byte": {func(_, size int) bool { return size < 9000 }, PathMTU{Size: 9000, Passes: 8999}},
		"each second packet is lost": {
			func(n, size int) bool { return size <= 1400 && n%2 == 0 }, PathMTU{Size: 9000, Passes: 1400},
		},
		"a burst is lost": {
			func(n, size int) bool { return size <= 8000 && (n < 6 || n > 12) }, PathMTU{Size: 9000, Lossy: true},
		},
		"nothing comes back": {func(_, _ int) bool { return false }, PathMTU{Size: 9000}},
		"it goes silent":     {func(n, _ int) bool { return n == 1 }, PathMTU{Size: 9000, Lossy: true}},
	} {
		p := &counted{pingFunc: c.answers}
		got, err := MeasureMTU(context.Background(), p, 9000)
		if err != nil || got != c.want || p.n > 60 {
			t.Errorf("%s: got %+v after %d packets, %v, want %+v", name, got, p.n, err, c.want)
		}
	}
}
