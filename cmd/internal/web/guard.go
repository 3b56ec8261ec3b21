package web

import (
	"net"
	"net/http"

	"github.com/lanyard-net/lanyard/cmd/internal/httpd"
)

// guard refuses requests that an administrator did not make, and limits what a browser does with the
// answers.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		// Against a container with markup as its name or id: html/template escapes it, and if that failed,
		// the browser would run no script and load nothing that is not the service's own.
		h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		// Against a web site that the administrator visits, which could include the page or parts of it to
		// measure or cover them. Without CORS headers it can read nothing.
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		if !localHost(r.Host) {
			// Against DNS rebinding: if the name of a web site leads to 127.0.0.1, the browser lets the site's
			// script read the page. The same holds for a socket that ssh forwards.
			http.Error(w, "the page answers to localhost and loopback addresses only: use http://localhost and the port",
				http.StatusMisdirectedRequest)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "the page is read-only: use GET", http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// localHost reports whether the value of a Host header names this machine.
func localHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return httpd.Loopback(host)
}
