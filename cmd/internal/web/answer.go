package web

import (
	"bytes"
	"net/http"
)

// oneByOne returns a handler that makes one answer at a time, so that local users who load the page in
// a loop cannot take more than one processor from the starts of containers. The wait for a view, and a
// client that reads slowly, keep no other answer waiting.
func (w *watch) oneByOne(serve func(http.ResponseWriter, *http.Request, *view)) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		v := w.wanted(rw, r)
		if v == nil {
			return
		}
		select {
		case w.turn <- struct{}{}:
		case <-r.Context().Done():
			return // the client has gone
		}
		a := &unsent{ResponseWriter: rw, status: http.StatusOK}
		func() {
			defer func() { <-w.turn }()
			serve(a, r, v)
		}()
		a.send()
	}
}

// unsent is an answer in memory.
type unsent struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

// WriteHeader implements [http.ResponseWriter].
func (u *unsent) WriteHeader(status int) { u.status = status }

// Write implements [http.ResponseWriter].
func (u *unsent) Write(b []byte) (int, error) { return u.body.Write(b) }

func (u *unsent) send() {
	u.ResponseWriter.WriteHeader(u.status)
	_, _ = u.body.WriteTo(u.ResponseWriter) // the client has gone
}
