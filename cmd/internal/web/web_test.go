package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/lldp"
)

// TestPage reads the pages of a running service as a browser without a script does.
func TestPage(t *testing.T) {
	testenv.OutsideOfVM(t)
	w := newLab(t, 2)

	t.Run("overview", func(t *testing.T) {
		page := w.get(t, "/")
		wants(t, page, "4 of 4 containers work", "192.168.50.0/24", ">web-1<", ">web-2<", ">db-1<",
			`<noscript><meta http-equiv="refresh"`, `&lt;script&gt;document.title=`)
		if strings.Contains(page, hostile) || strings.Count(page, "<script") != 1 {
			t.Errorf("the id of a container is markup in %s", page)
		}
	})

	t.Run("filter", func(t *testing.T) {
		for _, c := range []struct {
			query string
			shown []string
		}{
			{"", []string{"web-1", "web-2", "db-1"}},
			{"?q=WEB-2", []string{"web-2"}},
			{"?q=192.168.60.2", []string{"db-1"}},
			{"?q=eth8+db", []string{"db-1"}},
			{"?q=db-&verdict=ok", []string{"db-1"}},
			{"?verdict=bad", nil},
			{"?verdict=vlan-silent", nil},
			{"?q=" + url.QueryEscape(hostile), nil},
		} {
			page := w.get(t, "/"+c.query)
			for _, name := range []string{"web-1", "web-2", "db-1"} {
				want := fmt.Sprint(c.shown)
				if got := strings.Contains(page, ">"+name+"<"); got != strings.Contains(want, name) {
					t.Errorf("%q: %s is shown: %v, want %s", c.query, name, got, want)
				}
			}
		}
		if a := w.request(t, http.MethodGet, "/?q="+strings.Repeat("x", maxFilter+1), ""); a.status != http.StatusBadRequest {
			t.Errorf("a long filter: %d", a.status)
		}
	})

	t.Run("container", func(t *testing.T) {
		page := w.get(t, "/c/"+w.attachment(t, "web-1"))
		wants(t, page, "<h1><bdi>web-1</bdi></h1>", "192.168.50.2/24", "answered in", "Round trip to the gateway",
			"lanyard inspect "+w.attachment(t, "web-1"))
		w.get(t, "/c/"+w.attachment(t, hostile))
		if a := w.request(t, http.MethodGet, "/c/nothing", ""); a.status != http.StatusNotFound {
			t.Errorf("an unknown container: %d", a.status)
		}
	})

	t.Run("map", func(t *testing.T) {
		var nodes []overview.Node
		if err := json.Unmarshal([]byte(w.get(t, "/map.json")), &nodes); err != nil || len(nodes) != 1 {
			t.Fatalf("%d nodes, %v", len(nodes), err)
		}
		if got := nodes[0].Children; nodes[0].Kind != "host" || len(got) != 2 || got[1].Name != w.Trunk {
			t.Errorf("got %+v", nodes[0])
		}
		wants(t, w.get(t, "/map.svg"), "<svg", ">web-1<")
	})

	t.Run("requests", func(t *testing.T) {
		requests(t, w)
	})

	t.Run("broken", func(t *testing.T) {
		broken(t, w)
	})
}

// requests tries what others than the administrator's browser could send.
func requests(t *testing.T, w lab) {
	for _, c := range []struct {
		what, method, path, host string
		status                   int
	}{
		{"localhost", "GET", "/", "localhost:8080", 200},
		{"another loopback address", "GET", "/", "127.0.0.2", 200},
		{"IPv6", "GET", "/", "[::1]:8080", 200},
		{"only the header", "HEAD", "/", "localhost", 200},
		{"DNS rebinding", "GET", "/", "attacker.example:8080", 421},
		{"a name that begins alike", "GET", "/style.css", "localhost.attacker.example", 421},
		{"an address that begins alike", "GET", "/", "127.0.0.1.attacker.example", 421},
		{"another address", "GET", "/map.json", "192.168.50.9:8080", 421},
		{"a change", "POST", "/", "localhost", 405},
		{"a change with a path", "DELETE", "/c/1", "localhost", 405},
		{"a preflight of CORS", "OPTIONS", "/map.json", "localhost", 405},
		{"another file", "GET", "/overview.html.tmpl", "localhost", 404},
		{"a path out of the directory", "GET", "/..%2f..%2fetc/passwd", "localhost", 404},
	} {
		a := w.request(t, c.method, c.path, c.host)
		if a.status != c.status {
			t.Errorf("%s: %d, want %d", c.what, a.status, c.status)
		}
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'self';", "X-Content-Type-Options": "nosniff",
			"Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store",
		} {
			if got := a.header.Get(name); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s is %q, want %q", c.what, name, got, want)
			}
		}
		if got := a.header.Get("Access-Control-Allow-Origin"); got != "" {
			t.Errorf("%s: other sites may read it: %q", c.what, got)
		}
	}
	for path, kind := range map[string]string{
		"/page.js": "text/javascript", "/style.css": "text/css", "/icon.svg": "image/svg+xml",
		"/map.svg": "image/svg+xml", "/map.json": "application/json", "/": "text/html",
	} {
		a := w.request(t, http.MethodGet, path, "")
		if got := a.header.Get("Content-Type"); a.status != 200 || !strings.HasPrefix(got, kind) {
			t.Errorf("%s: %d, %q", path, a.status, got)
		}
	}
}

// broken breaks a VLAN on the far side of the switch and lets another station take an address: both
// show on the page, which no command has caused.
func broken(t *testing.T, w lab) {
	eventually := func(what string, words ...string) {
		t.Helper()
		testenv.Eventually(t, what, func() error {
			page := w.get(t, "/")
			for _, word := range words {
				if !strings.Contains(page, word) {
					return fmt.Errorf("no %q in %s", word, page)
				}
			}
			return nil
		})
	}
	w.gateways["db"].SetPort(false)
	eventually("a silent gateway", "3 of 4 containers work", `class="parent bad"`, "0 of 1 containers work",
		"gateway 192.168.60.1 did not answer")
	w.gateways["db"].SetPort(true)
	eventually("its answer", "4 of 4 containers work")
	w.SetTrunk(false)
	eventually("the carrier's end", "1 of 4 containers work", "has no carrier", "parent-down")
	w.SetTrunk(true)
	w.WaitCarrier()
	eventually("the carrier", "4 of 4 containers work")
	s := w.AddClaimant(0, "192.168.50.2/24")
	s.SetMAC(ether.MAC{2, 0, 0, 0, 0, 2})
	if _, err := s.Exec("ping", "-n", "-c1", "-W5", "192.168.50.1"); err != nil {
		t.Fatal(err)
	}
	eventually("the conflict", "address-conflict", "is held by 02:00:00:00:00:02", "anomalies")
	wants(t, w.get(t, "/?verdict=bad"), ">web-1<")
	w.DetachAndEnd("db-1", w.containers["db-1"])
	eventually("the container's end", "of 3 containers work")
}

// TestHistory checks that the samples of an hour are kept, in order, and that the memory is bounded.
func TestHistory(t *testing.T) {
	h := newHistory()
	row := func(id string, code verify.Code, anomalies, bytes uint64) overview.Row {
		return overview.Row{Attachment: id, Verdict: code, RTT: 1000, Counters: &verify.Counters{OutBytes: bytes},
			Anomalies: []verify.Anomaly{{Count: anomalies}}}
	}
	now := h.at
	for i := range uint64(samples + 10) {
		now = now.Add(sampleInterval)
		code := verify.OK
		if i == uint64(samples) {
			code = verify.VLANSilent
		}
		h.add(now, []overview.Row{row("a", code, i, 100*i), row("a", code, i, 100*i)}, nil)
	}
	points := h.of("a")
	want := point{code: verify.OK, anomalies: 1, rtt: 1e-6, bytes: 10}
	for i, p := range points {
		wanted := want
		if i == samples-10 {
			wanted.code = verify.VLANSilent
		}
		if p != wanted {
			t.Fatalf("point %d is %+v, want %+v", i, p, wanted)
		}
	}
	// The worst verdict between two samples; then a reading that failed; then the container ends.
	h.add(now, []overview.Row{row("a", verify.OK, 0, 0)}, map[string]verify.Code{"a": verify.GatewaySilent})
	h.miss(now)
	last := h.of("a")[samples-2:]
	if last[0].code != verify.GatewaySilent || last[0].bytes != 0 || last[1] != (point{}) {
		t.Errorf("the last points are %+v", last)
	}
	var many []overview.Row
	for i := range maxHistories + 10 {
		many = append(many, row(fmt.Sprint(i), verify.OK, 0, 0))
	}
	h.add(now, many, nil)
	if len(h.series) > maxHistories || h.of("a")[samples-1] != (point{}) || h.of("1")[samples-1].code != verify.OK {
		t.Errorf("%d histories", len(h.series))
	}
	h.add(now, nil, nil)
	if len(h.series) != 0 {
		t.Errorf("%d histories of containers that are gone", len(h.series))
	}
}

// TestDraw checks the drawing of a history with a gap, a fault and anomalies.
func TestDraw(t *testing.T) {
	points := make([]point, 8)
	for i := 2; i < 8; i++ {
		points[i] = point{code: verify.OK, rtt: 0.001, bytes: 10}
	}
	points[4] = point{code: verify.VLANSilent, anomalies: 3}
	d := draw(points)
	if got := fmt.Sprint(d.Verdicts); got != "[{2 2 good} {4 1 bad} {5 3 good}]" {
		t.Errorf("verdicts are %s", got)
	}
	if d.RTT != "M2 1.0h.5L3 1.0M5 1.0h.5L6 1.0L7 1.0" {
		t.Errorf("the path is %q", d.RTT)
	}
	if got := fmt.Sprint(d.Anomalies); got != "[{4 0 40}]" {
		t.Errorf("anomalies are %s", got)
	}
	if d.Works != "83.33 %" || d.MedianRTT != "1ms" || d.MostTraffic != "10 B/s" || d.AnomalyCount != 3 {
		t.Errorf("got %+v", d)
	}
	if d := draw(make([]point, 3)); d.RTT != "" || d.Works != "" || len(d.Verdicts) != 0 {
		t.Errorf("nothing is drawn as %+v", d)
	}
	if got := coarse(points, 4); len(got) != 4 || got[2].code != verify.VLANSilent || got[2].anomalies != 3 {
		t.Errorf("coarse points are %+v", got)
	}
}

// TestFailedReading checks that a reading that failed leaves alone what pages show, and its time and
// rates; and that the error is logged once, not twice a second.
func TestFailedReading(t *testing.T) {
	var log bytes.Buffer
	w := newWatch(nil, lldp.Memory(""), slog.New(slog.NewTextHandler(&log, nil)))
	start := time.Now()
	for i := range 2 {
		at := start.Add(time.Duration(i) * refreshInterval)
		container := &overview.Node{Kind: "container", Name: "c1", Attachment: "a"}
		w.publish(&view{at: at, tried: at, host: &overview.Node{Kind: "host", Children: []*overview.Node{container}},
			rows: []overview.Row{{Attachment: "a", Counters: &verify.Counters{OutBytes: uint64(i) * 1000}}}})
	}
	before := w.now
	failed := errors.New("the database is locked")
	for i := range 10 {
		w.logUnread(failed)
		w.publish(w.unchanged(before.at.Add(time.Duration(i+1)*time.Second), failed))
	}
	v := w.now
	if !errors.Is(v.failed, failed) || v.host != before.host || !v.at.Equal(before.at) || v.version <= before.version {
		t.Errorf("the view is %+v, want that of before with an error: %+v", v, before)
	}
	if got := *v.host.Children[0].OutRate; got != 500 {
		t.Errorf("the rate is %v, want that of the last two readings: 500", got)
	}
	if n := strings.Count(log.String(), "database is locked"); n != 1 {
		t.Errorf("the error was logged %d times", n)
	}
	w.logUnread(nil)
	w.logUnread(failed)
	if n := strings.Count(log.String(), "database is locked"); n != 2 {
		t.Errorf("after a reading without errors, the next one was not logged: %d", n)
	}
}

// TestFailedRound checks that a round that failed changes no verdict: above all, it makes none good.
func TestFailedRound(t *testing.T) {
	p := newProber(nil, nil)
	shown := func() verify.Code {
		rows := []overview.Row{{Attachment: "a", Verdict: verify.OK}, {Attachment: "b", Verdict: verify.GatewaySilent}}
		p.apply(rows)
		if rows[1].Verdict != verify.GatewaySilent {
			t.Errorf("the start's bad verdict has become %q", rows[1].Verdict)
		}
		return rows[0].Verdict
	}
	now, failed := time.Now(), errors.New("cannot be asked")
	p.found["b"] = found{}.next(now, nil, failed)
	for _, c := range []struct {
		verdicts []verify.Verdict
		err      error
		want     verify.Code
	}{
		{nil, failed, verify.Unverified},
		{[]verify.Verdict{{Code: verify.VLANSilent}}, nil, verify.VLANSilent},
		{nil, failed, verify.VLANSilent},
		{[]verify.Verdict{{Code: verify.OK}}, nil, verify.OK},
		{nil, failed, verify.OK},
	} {
		before := p.found["a"]
		after := before.next(now, c.verdicts, c.err)
		p.found["a"] = after
		if got := shown(); got != c.want {
			t.Errorf("after %v, %v: the page shows %q, want %q", c.verdicts, c.err, got, c.want)
		}
		if c.err != nil && after.change != before.change {
			t.Error("a failed round counts as a change")
		}
	}
}

// TestDue checks which gateways are asked next, of two networks with 20 containers each.
func TestDue(t *testing.T) {
	p := newProber(nil, nil)
	var recs []hook.Attachment
	start := time.Now()
	for i := range byte(40) {
		a := hook.Attachment{ID: verify.ID{i + 1}, State: hook.Attached, Network: []string{"web", "db"}[i%2]}
		recs = append(recs, a)
		at := start.Add(time.Duration(i) * time.Second)
		p.found[a.ID.String()] = found{Verdict: verify.Verdict{Code: verify.OK}, at: at}
	}
	due := func() (ids []int) {
		for _, a := range p.due(recs) {
			ids = append(ids, int(a.ID[0]))
		}
		return ids
	}
	if got := fmt.Sprint(due()); got != "[1 2 3 4 5 6]" {
		t.Errorf("due are %s: want one of each network, and 4 others, the oldest first", got)
	}
	recs[0].Mode, recs[1].State = verify.Off, hook.Attaching
	p.asking[recs[2].ID.String()] = "web"
	if got := fmt.Sprint(due()); got != "[4 5 6 7 8]" {
		t.Errorf("due are %s: want none with verification off, not attached or being asked", got)
	}
	// The newest of "db" turns bad: the others of "db" come before those of "web".
	bad := p.found[recs[39].ID.String()]
	bad.change = bad.at.Add(time.Second)
	p.found[recs[39].ID.String()] = bad
	if got := due(); len(got) != 19+4 || got[0] != 4 || got[1] != 6 || got[2] != 8 || got[19] != 5 {
		t.Errorf("due are %v: want all of db", got)
	}
}

// TestSilentNetwork checks that a network with rounds that do not end leaves rounds for the others: each
// of them is asked in the first turn that sees it.
func TestSilentNetwork(t *testing.T) {
	p := newProber(nil, nil)
	var recs []hook.Attachment
	add := func(network string, n int) {
		for range n {
			id := len(recs) + 1
			recs = append(recs, hook.Attachment{ID: verify.ID{byte(id >> 8), byte(id)}, State: hook.Attached, Network: network})
		}
	}
	add("silent", 100)
	for range 100 {
		p.reserve(recs)
	}
	if got := len(p.asking); got != maxRounds/2 {
		t.Errorf("one network has %d of %d rounds", got, maxRounds)
	}
	for _, network := range []string{"web", "db", "backup"} {
		add(network, 10)
		if !slices.ContainsFunc(p.reserve(recs), func(a hook.Attachment) bool { return a.Network == network }) {
			t.Errorf("%q is not asked: %d rounds are left", network, p.free)
		}
	}
}
