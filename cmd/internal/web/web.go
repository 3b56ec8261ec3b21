// Package web serves the page of "lanyard serve --web": what "lanyard map" draws, live, with the last
// hour in plots. It reads by package overview, as the commands do, and has gateways asked as "lanyard
// verify" does. It changes nothing.
//
// The page is HTML that the server renders, in every state. The script fetches the same page again
// when something is new, and puts the difference in place, so that the page has one rendering and works
// without the script.
package web

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/lanyard-net/lanyard/cmd/internal/httpd"
	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/verify/lldp"
)

// maxFilter limits the text of a filter, in bytes.
const maxFilter = 200

// answerTimeout limits an answer: a request waits for a view, and for its reader.
const answerTimeout = 20 * time.Second

//go:embed assets
var assets embed.FS

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"printable": overview.Printable, "clock": clock, "rounded": overview.Rounded, "bytes": humanBytes,
}).ParseFS(assets, "assets/*.tmpl"))

func clock(t time.Time) string   { return t.Local().Format(time.TimeOnly) }
func humanBytes(n uint64) string { return overview.Bytes(float64(n)) }

// Page serves the page.
type Page struct {
	Lanyard *wiring.Lanyard
	Heard   lldp.Memory
	Log     *slog.Logger
}

// Serve answers requests until ctx ends.
func (p Page) Serve(ctx context.Context, l net.Listener) error {
	w := newWatch(p.Lanyard, p.Heard, p.Log)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.run(ctx)
	}()
	err := httpd.Serve(ctx, l, guard(w.handler()), answerTimeout)
	cancel()
	<-done
	if err != nil {
		return fmt.Errorf("web: %w", err)
	}
	return nil
}

// Ask has gateways asked every 10 s until ctx ends, as Serve does while no page is open.
func (p Page) Ask(ctx context.Context) { newWatch(p.Lanyard, p.Heard, p.Log).run(ctx) }

func (w *watch) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", w.oneByOne(w.serveOverview))
	mux.HandleFunc("GET /c/{attachment}", w.oneByOne(w.serveContainer))
	mux.HandleFunc("GET /map.json", w.oneByOne(w.serveJSON))
	mux.HandleFunc("GET /map.svg", w.oneByOne(w.serveSVG))
	for _, name := range []string{"page.js", "style.css", "icon.svg"} {
		mux.HandleFunc("GET /"+name, func(rw http.ResponseWriter, r *http.Request) {
			http.ServeFileFS(rw, r, assets, "assets/"+name)
		})
	}
	return mux
}

// wanted returns the view for a request, which may wait for a newer one than it has. It answers itself
// and returns nil if nothing could be read.
func (w *watch) wanted(rw http.ResponseWriter, r *http.Request) *view {
	after, _ := strconv.ParseUint(r.FormValue("after"), 10, 64) // 0 does not wait
	v := w.view(r.Context(), after)
	if v == nil || v.host == nil {
		text := "the state of the host cannot be read"
		if v != nil {
			text = v.failed.Error()
		}
		http.Error(rw, text, http.StatusServiceUnavailable)
		return nil
	}
	return v
}

func (w *watch) serveOverview(rw http.ResponseWriter, r *http.Request, v *view) {
	p := overviewPage{common: v.common(), Root: tree(v, w.history)}
	p.Filter = filter{Text: r.FormValue("q"), Verdict: r.FormValue("verdict")}
	if len(p.Filter.Text) > maxFilter {
		http.Error(rw, fmt.Sprintf("the filter is longer than %d bytes", maxFilter), http.StatusBadRequest)
		return
	}
	p.count(p.Root)
	slices.Sort(p.Verdicts)
	p.Shown = p.Root.keep(p.Filter)
	w.render(rw, http.StatusOK, "overview.html.tmpl", &p)
}

func (w *watch) serveContainer(rw http.ResponseWriter, r *http.Request, v *view) {
	attachment := r.PathValue("attachment")
	p := containerPage{common: v.common(), Item: tree(v, w.history).find(attachment)}
	if p.Item == nil {
		p.Title = "Not attached"
		w.render(rw, http.StatusNotFound, "gone.html.tmpl", &p)
		return
	}
	for _, row := range v.rows {
		if row.Attachment == attachment {
			p.Rows = append(p.Rows, row)
		}
	}
	p.Title = overview.Printable(p.Name)
	last := w.prober.last(attachment)
	p.Plot, p.Asked = draw(w.history.of(attachment)), last.at
	if last.failed != nil {
		p.NotAsked = last.failed.Error()
	}
	w.render(rw, http.StatusOK, "container.html.tmpl", &p)
}

func (w *watch) serveJSON(rw http.ResponseWriter, _ *http.Request, v *view) {
	rw.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(rw)
	enc.SetIndent("", "  ")
	_ = enc.Encode([]*overview.Node{v.host}) // as "lanyard map --format json"; into memory
}

func (w *watch) serveSVG(rw http.ResponseWriter, _ *http.Request, v *view) {
	svg, err := v.host.SVG()
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	rw.Header().Set("Content-Type", "image/svg+xml")
	// The drawing has its own style sheet.
	rw.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	_, _ = rw.Write(svg)
}

func (v *view) common() common {
	c := common{Title: "Lanyard", Host: v.host.Name, Version: v.version, At: v.at}
	if v.failed != nil {
		c.Failed = v.failed.Error()
	}
	return c
}

// render answers with a page. A template that fails answers with an error, not with a part.
func (w *watch) render(rw http.ResponseWriter, status int, name string, data any) {
	var page bytes.Buffer
	if err := pages.ExecuteTemplate(&page, name, data); err != nil {
		w.log.Error("cannot render the page", "page", name, "err", err)
		http.Error(rw, "the page cannot be rendered: the service's log says why", http.StatusInternalServerError)
		return
	}
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	rw.WriteHeader(status)
	_, _ = page.WriteTo(rw)
}
