package main

import (
	"errors"
	"log/slog"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/serve"
	"github.com/lanyard-net/lanyard/hook"
)

func (e env) serve() *cli.Command {
	return &cli.Command{
		Name:      "serve",
		Usage:     "attach rootless containers: the broker",
		UsageText: "lanyard serve [OPTIONS]",
		Description: `Examples:
  systemctl enable --now lanyard.socket   the usual way: started when first needed
  lanyard serve                           in the foreground
  lanyard serve --log json --sweep 10s

Who may attach to what is each network's to say: see --allow-user, --allow-group
and --max-per-user of "lanyard network create". A user who was refused sees the
line again with "lanyard why"; the full reason is in this command's log.
SIGTERM ends it once what is under way is done. Containers keep running.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "log", Value: "text", Usage: "`FORMAT` of the log on stderr: text or json (default: text)"},
			&cli.BoolFlag{Name: "prepare", Usage: "only make the namespace for guarded attachments: for lanyard-guards.service"},
			&cli.StringFlag{Name: "sweep", Value: "30s", Usage: "`TIME` between looks for what vanished containers left (default: 30s)"},
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
		return usagef("--sweep %q: use a time from 1s on", c.String("sweep"))
	}
	log, err := e.logger(c.String("log"))
	if err != nil {
		return err
	}
	if c.Bool("prepare") {
		return serve.Prepare(paths(c))
	}
	err = serve.Run(c.Context, serve.Options{Paths: paths(c), Log: log, Sweep: every})
	if errors.Is(err, hook.ErrUnprivileged) {
		return unprivileged(c)
	}
	return err
}

func (e env) logger(format string) (*slog.Logger, error) {
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(e.stderr, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(e.stderr, nil)), nil
	}
	return nil, usagef("--log %q: use text or json", format)
}
