package metrics

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lanyard-net/lanyard/cmd/internal/httpd"
)

// Serve answers GET /metrics until ctx ends. One collection runs at a time.
func (c Collector) Serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.Registry(), promhttp.HandlerOpts{MaxRequestsInFlight: 1}))
	if err := httpd.Serve(ctx, l, mux, 2*collectTimeout); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
