// Package packaging contains the files that make container engines run the hook. "make
// install" and "lanyard hooks install" write the same text.
package packaging

import (
	_ "embed"
	"encoding/json"
	"strconv"
	"strings"
)

// Stages are the stages of the hook. Each has a file of its own in hooks.d.
var Stages = []string{"createRuntime", "createContainer", "poststop"}

//go:embed hooks.d/lanyard.json.in
var hookFile string

// HookFile returns the text of the hooks.d file for a stage, with the path of lanyard-hook.
func HookFile(program, stage string) string {
	quoted, _ := json.Marshal(program) // a string has no error
	text := strings.ReplaceAll(hookFile, `"@PREFIX@/libexec/lanyard/lanyard-hook"`, string(quoted))
	return strings.ReplaceAll(text, "@STAGE@", stage)
}

//go:embed cdi/lanyard.json.in
var cdiSpec string

// CDISpec returns the text of the CDI specification, with the path of lanyard-hook. It has one
// device, by which Docker runs the hooks. The stage createContainer is not needed, because Docker
// mounts a resolv.conf in every container.
func CDISpec(program string) string {
	quoted, _ := json.Marshal(program) // a string has no error
	return strings.ReplaceAll(cdiSpec, `"@PREFIX@/libexec/lanyard/lanyard-hook"`, string(quoted))
}

// Templates of the drop-in files that set hooks_dir. DropIn fills them in.
var (
	//go:embed containers.conf.d/50-lanyard.conf.in
	PodmanDropIn string
	//go:embed crio.conf.d/50-lanyard.conf.in
	CRIODropIn string
)

// DropIn returns the text of a drop-in file that sets hooks_dir to these directories.
func DropIn(template string, dirs []string) string {
	quoted := make([]string, len(dirs))
	for i, d := range dirs {
		quoted[i] = strconv.Quote(d)
	}
	return strings.ReplaceAll(template, "@DIRS@", strings.Join(quoted, ", "))
}
