package web

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/cmd/internal/httpd"
	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/verify/lldp"
)

// TestOneByOne loads a large page over many connections, after a client that does not read its answer:
// all are answered, and no two answers are made at one time.
func TestOneByOne(t *testing.T) {
	w := newWatch(nil, lldp.Memory(""), nil)
	w.publish(&view{at: time.Now(), tried: time.Now(), host: &overview.Node{Kind: "host"}})
	var making, most atomic.Int32
	made := make(chan struct{}, 100)
	page := make([]byte, 4<<20) // more than the buffers of a socket hold
	handler := w.oneByOne(func(rw http.ResponseWriter, _ *http.Request, _ *view) {
		if n := making.Add(1); n > most.Load() {
			most.Store(n)
		}
		time.Sleep(10 * time.Millisecond)
		_, _ = rw.Write(page)
		making.Add(-1)
		made <- struct{}{}
	})
	path := filepath.Join(t.TempDir(), "web.sock")
	listener, err := httpd.Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = httpd.Serve(ctx, listener, handler, answerTimeout) })
	defer tasks.Wait()
	defer cancel()

	slow, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	fmt.Fprint(slow, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	<-made
	client := &http.Client{Timeout: answerTimeout / 2, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	defer client.CloseIdleConnections()
	var loads sync.WaitGroup
	for range 16 {
		loads.Go(func() {
			a, err := client.Get("http://localhost/")
			if err != nil {
				t.Error(err)
				return
			}
			defer a.Body.Close()
			if n, err := io.Copy(io.Discard, a.Body); err != nil || n != int64(len(page)) {
				t.Errorf("got %d bytes, %v", n, err)
			}
		})
	}
	loads.Wait()
	if most.Load() != 1 {
		t.Errorf("%d answers were made at one time", most.Load())
	}
}
