package metrics

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lanyard-net/lanyard/cmd/internal/httpd"
)

// Listen opens the listener for Serve: "unix:PATH", for root only, or "HOST:PORT".
func Listen(addr string) (net.Listener, error) {
	l, err := httpd.Listen(addr)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return l, nil
}

// Serve answers GET /metrics until ctx ends. One collection runs at a time.
func (c Collector) Serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.Registry(), promhttp.HandlerOpts{MaxRequestsInFlight: 1}))
	if err := httpd.Serve(ctx, l, mux, 2*collectTimeout); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
