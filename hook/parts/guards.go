package parts

import (
	"errors"

	"github.com/lanyard-net/lanyard/hook/link"
)

// ErrNoGuards is returned if this process has no namespace for guarded attachments. "lanyard serve"
// creates it.
var ErrNoGuards = errors.New("only the service creates guarded attachments: run \"lanyard serve\"")

// OpenGuards opens the namespace of guarded attachments. It returns ErrNoGuards if this process
// creates no guards.
func (p *Parts) OpenGuards() (*link.Netns, error) {
	if p.Guards == nil {
		return nil, ErrNoGuards
	}
	return p.Host.OpenNetnsPath(p.GuardNetns)
}
