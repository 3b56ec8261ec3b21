package main

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/engines"
	"github.com/lanyard-net/lanyard/cmd/internal/journal"
	"github.com/lanyard-net/lanyard/cmd/internal/serve"
	"github.com/lanyard-net/lanyard/hook"
)

func (e env) serve() *cli.Command {
	return &cli.Command{
		Name:      "serve",
		Usage:     "run the service, which attaches containers, also rootless ones",
		UsageText: "lanyard serve [OPTIONS]",
		Description: `Examples:
  systemctl enable --now lanyard.socket   the usual way: started when first needed
  lanyard serve                           in the foreground
  lanyard serve --log json --sweep 10s
  lanyard serve --web 127.0.0.1:8080      a page that shows "lanyard map", live

Each network defines who may attach: see --allow-user, --allow-group and --max-per-user
of "lanyard network create". "lanyard why" shows users their refusals; the full reasons
are in the log of this command, and Docker's containers that start off the LAN because
they have an annotation and not the device. On SIGTERM, the service finishes the requests
that it has begun, and ends. Containers keep running.

The page of --web is read-only, and for this machine: it answers on a loopback address or a
socket for root; "ssh -L 8080:/run/lanyard/web.sock root@HOST" brings a socket to
http://localhost:8080. While a page is open, the service asks gateways twice a second, as
"lanyard verify" does; else each 10 s, for the plots of the last hour. With --metrics alone it
asks each 10 s. "lanyard ps", "map" and the metrics then show the last verdicts.

lanyard.service allows sockets in /run/lanyard only. "systemctl edit lanyard.service" opens an
editor for its options; the path is the one that "systemctl cat lanyard.service" shows:

  [Service]
  ExecStart=
  ExecStart=/usr/bin/lanyard serve --web unix:/run/lanyard/web.sock \
      --metrics unix:/run/lanyard/metrics.sock

"systemctl restart lanyard.service" starts it with them; containers keep running. Where lldpd
runs, its group lets the page and the verdicts show the switch port: SupplementaryGroups=_lldpd
in the same section (Debian's name of the group).`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "log",
				Usage: "`FORMAT` format of the log on stderr: text or json (default: with fields, if stderr is the journal)"},
			&cli.StringFlag{Name: "metrics",
				Usage: "`ADDRESS` to serve metrics at, unix:PATH or HOST:PORT; see \"lanyard metrics\" (default: none)"},
			&cli.BoolFlag{Name: "prepare",
				Usage: "only create the namespace for guarded attachments (used by lanyard-guards.service)"},
			&cli.StringFlag{Name: "sweep", Value: "30s",
				Usage: "`DURATION` interval between sweeps for vanished containers (default: 30s)"},
			&cli.StringFlag{Name: "web",
				Usage: "`ADDRESS` to serve the page at, unix:PATH or LOOPBACK:PORT (default: none)"},
		},
		Action: e.runServe,
	}
}

func (e env) runServe(c *cli.Context) error {
	if err := checkArgs(0, c, "argument"); err != nil {
		return err
	}
	every, err := time.ParseDuration(c.String("sweep"))
	if err != nil || every < time.Second {
		return usagef("--sweep %q: use a duration of at least 1s", c.String("sweep"))
	}
	log, err := e.logger(c.String("log"))
	if err != nil {
		return err
	}
	if c.Bool("prepare") {
		return serve.Prepare(paths(c))
	}
	o := serve.Options{Paths: paths(c), Log: log, Sweep: every, Docker: engines.HostDocker}
	if o.Tasks, err = httpTasks(c, log); err != nil {
		return err
	}
	err = serve.Run(c.Context, o)
	if errors.Is(err, hook.ErrUnprivileged) {
		return unprivileged(c)
	}
	return err
}

// logger returns the service's log. Lines on a unit's stderr become entries of the journal without
// fields. So entries go to the journal's socket, unless a format is given.
func (e env) logger(format string) (*slog.Logger, error) {
	switch format {
	case "":
		if !journal.Stderr() {
			return e.logger("text")
		}
		h, err := journal.NewHandler()
		if err != nil {
			return nil, fmt.Errorf("journal: %w: log to stderr with --log text", err)
		}
		return slog.New(h), nil
	case "text":
		return slog.New(slog.NewTextHandler(e.stderr, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(e.stderr, nil)), nil
	}
	return nil, usagef("--log %q: use text or json", format)
}
