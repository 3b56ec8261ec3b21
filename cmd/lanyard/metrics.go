package main

import (
	"cmp"
	"context"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/metrics"
	"github.com/lanyard-net/lanyard/internal/wiring"
)

func (e env) metrics() *cli.Command {
	return &cli.Command{
		Name:      "metrics",
		Usage:     "print verdicts, frames, anomalies and pools for Prometheus",
		UsageText: "lanyard metrics [OPTIONS]",
		Description: `Examples:
  lanyard metrics
  lanyard metrics --out /var/lib/prometheus/node-exporter/lanyard.prom
  lanyard serve --metrics 127.0.0.1:9740      the same, at /metrics
  lanyard serve --metrics unix:/run/lanyard/metrics.sock

lanyard.service allows a socket in /run/lanyard only. The output is Prometheus' text
format. With --out the file is replaced at once, for the textfile collector of
node_exporter: run the command by a timer. What cannot be read is reported on stderr,
lanyard_collect_success is 0, and the exit status is 1.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "`FILE` to replace, instead of stdout (default: stdout)"},
		},
		Action: e.runMetrics,
	}
}

func (e env) runMetrics(c *cli.Context) error {
	if err := checkArgs(0, c, "argument"); err != nil {
		return err
	}
	l, err := open(c)
	if err != nil {
		return err
	}
	defer l.Close()
	var failed error
	collector := metrics.Collector{Lanyard: l, Version: cmp.Or(version, "unreleased"), Failed: func(err error) {
		e.say("%v", err)
		failed = errReported
	}}
	if file := c.String("out"); file != "" {
		err = prometheus.WriteToTextfile(file, collector.Registry())
	} else {
		err = e.printMetrics(collector)
	}
	return cmp.Or(err, failed)
}

func (e env) printMetrics(collector metrics.Collector) error {
	families, err := collector.Registry().Gather()
	if err != nil {
		return err
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(e.stdout, f); err != nil {
			return err
		}
	}
	return nil
}

// serveMetrics answers scrapes until ctx ends.
func serveMetrics(ctx context.Context, _ wiring.Paths, l *wiring.Lanyard, listener net.Listener) error {
	return metrics.Collector{Lanyard: l, Version: cmp.Or(version, "unreleased"),
		Failed: func(err error) { l.Log.Error("cannot read all metrics", "err", err) }}.Serve(ctx, listener)
}
