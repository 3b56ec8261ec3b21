package web

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/lanyard-net/lanyard/verify/lldp"
)

// ports keeps what is known of the switch ports of trunks. A query of lldpd starts two processes and can
// take seconds, so readings use the last result.
type ports struct {
	heard lldp.Memory
	log   *slog.Logger
	more  chan struct{} // has an element if a trunk was added

	mu     sync.Mutex
	known  map[string]lldp.Known // by the trunk's name, for all trunks that were drawn
	failed map[string]string     // the last error of each, which is logged once
}

func newPorts(heard lldp.Memory, log *slog.Logger) *ports {
	return &ports{heard: heard, log: log, more: make(chan struct{}, 1), known: map[string]lldp.Known{},
		failed: map[string]string{}}
}

// of returns what is known of a trunk's port. It does not wait.
func (p *ports) of(trunk string) lldp.Known {
	p.mu.Lock()
	defer p.mu.Unlock()
	k, drawn := p.known[trunk]
	if !drawn {
		p.known[trunk] = k
		signal(p.more)
	}
	return k
}

// run asks for the ports of all trunks until ctx ends: at once for a new one, then every sampleInterval.
func (p *ports) run(ctx context.Context) {
	for ctx.Err() == nil {
		p.mu.Lock()
		trunks := slices.Sorted(maps.Keys(p.known))
		p.mu.Unlock()
		for _, trunk := range trunks {
			p.ask(ctx, trunk)
		}
		pause(ctx, watchedInterval, sampleInterval, p.more)
	}
}

func (p *ports) ask(ctx context.Context, trunk string) {
	k, err := p.heard.Ask(ctx, trunk)
	text := ""
	if err != nil {
		text = err.Error()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known[trunk] = k
	if text != "" && text != p.failed[trunk] && ctx.Err() == nil {
		p.log.Error("cannot ask for the switch port", "trunk", trunk, "err", err)
	}
	p.failed[trunk] = text
}
