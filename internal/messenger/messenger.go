// Package messenger is the service's client in the programs that engines start: the OCI hook and
// the plugins. Every container start loads it, so that it imports nothing of Lanyard's but the
// messages, and decodes no JSON. If no service answers, it executes lanyard-attach.
package messenger

import (
	"time"

	"github.com/lanyard-net/lanyard/hook/service/wire"
)

// Messenger carries one request.
type Messenger struct {
	Root    string // directory of Lanyard's files; "": the installed system
	Start   time.Time
	Timeout time.Duration // since Start
	Remedy  string        // what to do if lanyard-attach is missing
}

// Left returns the remaining time, rounded up to a tenth of a second, because errors name it. It is
// zero or less after the timeout.
func (m Messenger) Left() time.Duration {
	return m.Timeout - time.Since(m.Start).Truncate(100*time.Millisecond)
}

// Late returns what to say after the timeout.
func (m Messenger) Late() string { return "not done after " + m.Timeout.String() }

// Limit calls expire at the end of the timeout and of the time for undoing, unless the caller stops the
// timer by then.
func (m Messenger) Limit(expire func(text string)) *time.Timer {
	return time.AfterFunc(m.Timeout+wire.Grace, func() { expire(m.Late()) })
}
