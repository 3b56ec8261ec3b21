package serve

import (
	"context"
	"fmt"
	"time"

	"github.com/lanyard-net/lanyard/cmd/internal/engines"
	"github.com/lanyard-net/lanyard/hook/attach"
	"github.com/lanyard-net/lanyard/hook/service"
)

// dockerRetry is the interval for looking for a dockerd, and for trying again after an error.
const dockerRetry = 2 * time.Second

// watchDocker reports Docker's containers that start off the LAN: Docker runs the hook for containers
// with the CDI device only, and ignores the annotation without it.
func watchDocker(ctx context.Context, l *attach.Local, o Options) {
	said := "" // the last error, which is said once
	for ctx.Err() == nil {
		if o.Docker.Runs() {
			err := o.Docker.Started(ctx, func(c engines.Container) { reportOffLAN(ctx, l, o, c) })
			if text := fmt.Sprint(err); ctx.Err() == nil && text != said {
				o.Log.Warn("cannot see whether Docker's containers start off the LAN", "err", err)
				said = text
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(dockerRetry):
		}
	}
}

// reportOffLAN logs a container that has an annotation of Lanyard and no attachment, and keeps that for
// "lanyard why". The hook of a container has attached it before Docker reports the start.
func reportOffLAN(ctx context.Context, l *attach.Local, o Options, c engines.Container) {
	if !c.Ours() {
		return
	}
	recs, err := l.Attachments(ctx)
	if err != nil {
		o.Log.Error("cannot tell whether Docker's container is on the LAN", "container", c.ID, "err", err)
		return
	}
	if c.AttachedIn(recs) || !c.Runs() { // in this order: it may end at any moment
		return
	}
	text := fmt.Sprintf("Docker's container %q runs off the LAN: it has an annotation of Lanyard and not the device: "+
		"run it again with --device %s", c.Name, engines.CDIDevice)
	o.Log.Error("a container of Docker runs off the LAN", "container", c.ID, "err", text)
	if err := service.Kept(o.Paths.Failures()).Add(c.ID, text); err != nil {
		o.Log.Error("cannot keep a failure for \"lanyard why\"", "err", err)
	}
}
