package hook

import (
	"fmt"

	"github.com/lanyard-net/lanyard/verify"
)

// Refusal is the error of an attach with a fatal verdict.
type Refusal struct {
	Verdict  verify.Verdict
	Evidence *verify.Evidence // nil if the trunk was not watched
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s: %s", r.Verdict.Code, r.Verdict.Text) }
