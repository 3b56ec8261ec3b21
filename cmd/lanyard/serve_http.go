package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/httpd"
	"github.com/lanyard-net/lanyard/cmd/internal/web"
	"github.com/lanyard-net/lanyard/internal/wiring"
)

// endpoint is what the service answers by HTTP at the address of an option.
type endpoint struct {
	option string
	check  func(addr string) error
	listen func(addr string) (net.Listener, error)
	serve  func(context.Context, wiring.Paths, *wiring.Lanyard, net.Listener) error // until the context ends
}

var endpoints = []endpoint{
	{"metrics", httpd.Check, httpd.Listen, serveMetrics}, // without --web, askAgain probes the gateways
	{"web", httpd.CheckLocal, httpd.ListenLocal, servePage},
}

// httpTasks returns the tasks of the service that answer by HTTP.
func httpTasks(c *cli.Context, log *slog.Logger) (tasks []func(context.Context), err error) {
	for _, e := range endpoints {
		addr := c.String(e.option)
		if addr == "" {
			continue
		}
		if err := e.check(addr); err != nil {
			return nil, fmt.Errorf("--%s: %w", e.option, err)
		}
		log := log.With("option", "--"+e.option)
		tasks = append(tasks, func(ctx context.Context) { e.keep(ctx, paths(c), addr, log) })
	}
	if c.String("metrics") != "" && c.String("web") == "" { // with --web, the page probes the gateways
		tasks = append(tasks, func(ctx context.Context) { askAgain(ctx, paths(c), log) })
	}
	return tasks, nil
}

// askRetry is the interval at which askAgain tries to begin.
const askRetry = 10 * time.Second

// askAgain probes gateways until ctx ends, so that metrics show current verdicts.
func askAgain(ctx context.Context, p wiring.Paths, log *slog.Logger) {
	l, err := wiring.OpenPrivileged(p)
	for err != nil && ctx.Err() == nil {
		log.Error("cannot ask gateways again: metrics show the verdicts of the starts", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(askRetry):
			l, err = wiring.OpenPrivileged(p)
		}
	}
	if err != nil {
		return
	}
	defer l.Close()
	l.Log = log
	pageOf(p, l).Ask(ctx)
}

// keep answers at addr until ctx ends.
func (e endpoint) keep(ctx context.Context, p wiring.Paths, addr string, log *slog.Logger) {
	listen := func() (net.Listener, error) { return e.listen(addr) }
	httpd.Keep(ctx, log, listen, func(listener net.Listener) error {
		l, err := wiring.OpenPrivileged(p)
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		defer l.Close()
		l.Log = log
		return e.serve(ctx, p, l, listener)
	})
}

func servePage(ctx context.Context, p wiring.Paths, l *wiring.Lanyard, listener net.Listener) error {
	return pageOf(p, l).Serve(ctx, listener)
}

func pageOf(p wiring.Paths, l *wiring.Lanyard) web.Page {
	return web.Page{Lanyard: l, Heard: p.Switches(), Log: l.Log}
}
