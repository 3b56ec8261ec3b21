package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/cmd/internal/httpd"
	"github.com/lanyard-net/lanyard/cmd/internal/serve"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// pageAt is where the service of a lab serves the page, in the host's namespace.
const pageAt = "127.0.0.1:8080"

func TestMain(m *testing.M) {
	hooklab.RunService(runService)
	hooklab.Main(m)
}

// runService does what "lanyard serve --web" does.
func runService(ctx context.Context, p wiring.Paths, log *slog.Logger) error {
	l, err := wiring.OpenPrivileged(p)
	if err != nil {
		return err
	}
	defer l.Close()
	listener, err := httpd.ListenLocal(pageAt)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- Page{Lanyard: l, Heard: p.Switches(), Log: log}.Serve(ctx, listener) }()
	err = serve.Run(ctx, serve.Options{Paths: p, Log: log, Sweep: time.Minute})
	return errors.Join(err, <-ended)
}

// lab is a host with the page and two networks.
type lab struct {
	*hooklab.Lab
	gateways map[string]*testenv.Station // by network
	service  *hooklab.Service

	containers map[string]*testenv.Container // by id
}

// hostile is a container's id, which the runtime chooses.
const hostile = `<script>document.title="mine"</script>"'&`

// newLab returns a lab with a container on network db, and n and one with a hostile id on network web.
func newLab(t *testing.T, n int) lab {
	t.Helper()
	w := lab{Lab: hooklab.New(t, testenv.Config{}), gateways: map[string]*testenv.Station{},
		containers: map[string]*testenv.Container{}}
	w.AddUplink("eth8")
	w.gateways["web"] = w.AddGateway(0, "192.168.50.1/24")
	w.gateways["db"] = w.AddGateway(0, "192.168.60.1/24")
	w.Define("web", w.Trunk, nil, "192.168.50.0/24")
	w.Define("db", "eth8", nil, "192.168.60.0/24")
	attach := func(id, network string) {
		w.containers[id] = testenv.NewContainer(t)
		w.MustAttach(id, w.containers[id], "network="+network)
	}
	for i := range n {
		attach(fmt.Sprintf("web-%d", i+1), "web")
	}
	attach(hostile, "web")
	attach("db-1", "db")
	w.service = w.StartService()
	return w
}

// dial connects to a TCP port in the host's namespace.
func (w lab) dial(ctx context.Context, _, addr string) (c net.Conn, err error) {
	err = w.Host.Do(func() (err error) {
		var d net.Dialer
		d.FallbackDelay = -1 // on this thread
		c, err = d.DialContext(ctx, "tcp4", addr)
		return err
	})
	return c, err
}

// answer is an answer to a request.
type answer struct {
	status int
	header http.Header
	body   string
}

// request asks the page. host is the value of the Host header, "" for that of the address.
func (w lab) request(t *testing.T, method, path, host string) (a answer) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: w.dial, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+pageAt+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = cmp.Or(host, pageAt)
	got, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{got.StatusCode, got.Header, string(body)}
}

// get returns a page that must exist.
func (w lab) get(t *testing.T, path string) string {
	t.Helper()
	a := w.request(t, http.MethodGet, path, "")
	if a.status != http.StatusOK {
		t.Fatalf("GET %s: %d: %s", path, a.status, a.body)
	}
	return a.body
}

// wants checks what a text contains.
func wants(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("no %q in %s", word, text)
		}
	}
}

// attachment returns the id of a container's attachment.
func (w lab) attachment(t *testing.T, container string) string {
	t.Helper()
	for _, a := range w.Records() {
		if a.Containers[0].ID == container {
			return a.ID.String()
		}
	}
	t.Fatalf("container %q is not attached", container)
	return ""
}
