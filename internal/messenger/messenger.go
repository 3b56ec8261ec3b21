// Package messenger is the service's client in the programs that engines start: the OCI hook and
// the plugins. Every container start loads it, so that it imports nothing of Lanyard's but the
// messages, and decodes no JSON. If no service answers, it executes lanyard-attach.
package messenger

import "time"

// Messenger carries one request.
type Messenger struct {
	Root    string // directory of Lanyard's files; "": the installed system
	Start   time.Time
	Timeout time.Duration // since Start
	Remedy  string        // what to do if lanyard-attach is missing
}

// Left returns the rest of the timeout, in whole tenths of a second: an error names it, and the
// first milliseconds do not matter.
func (m Messenger) Left() time.Duration {
	return m.Timeout - time.Since(m.Start).Truncate(100*time.Millisecond)
}

// Late returns what to say after the timeout.
func (m Messenger) Late() string { return "not done after " + m.Timeout.String() }

// grace is the time for undoing an attach after the timeout.
const grace = 5 * time.Second

// Limit calls expire if the command is not done, and not undone, after the timeout. The caller stops
// the timer.
func (m Messenger) Limit(expire func(text string)) *time.Timer {
	return time.AfterFunc(m.Timeout+grace, func() { expire(m.Late()) })
}
