package engines

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/lanyard-net/lanyard/packaging"
)

// CDISpec is the CDI specification by which Docker runs the hooks.
const CDISpec = "/etc/cdi/lanyard.json"

// CDIDevice is the device of the specification: "docker run --device".
const CDIDevice = "io.lanyard/lan=on"

// cdiSpec is the part of a CDI specification that names the program.
type cdiSpec struct {
	Devices []struct {
		ContainerEdits struct {
			Hooks []struct {
				Path string `json:"path"`
			} `json:"hooks"`
		} `json:"containerEdits"`
	} `json:"devices"`
}

// program returns the path of the first hook's program, or "" if the list has no hook.
func (s cdiSpec) program() string {
	if len(s.Devices) == 0 || len(s.Devices[0].ContainerEdits.Hooks) == 0 {
		return ""
	}
	return s.Devices[0].ContainerEdits.Hooks[0].Path
}

// CDIFile returns the CDI specification at path as a file for Install.
func CDIFile(path, program string) File {
	return file{
		path: path, text: packaging.CDISpec(program),
		ours: func(text string) bool {
			var s cdiSpec
			return json.Unmarshal([]byte(text), &s) == nil && packaging.CDISpec(s.program()) == text
		},
	}
}

// CheckDocker checks the CDI specification, its program, and that Docker reads it. The result
// is empty if there is no specification: then "docker run" refuses the device.
func CheckDocker(ctx context.Context) []Check {
	text, err := os.ReadFile(CDISpec)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var s cdiSpec
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err == nil && s.program() == "" {
		err = errors.New("it has no hook")
	}
	if err != nil {
		return []Check{{"Docker", "files", Wrong, "", fmt.Sprintf(
			"%s: %v: remove it, and run \"lanyard hooks install --docker\"",
			CDISpec, err)}}
	}
	checks := []Check{{"Docker", "files", OK, "", CDISpec}, {"Docker", "program", OK, "", s.program()}}
	if info, err := os.Stat(s.program()); err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		checks[1].State, checks[1].Text = Wrong, fmt.Sprintf("%s is no program: Docker starts no container with the device: "+
			"install it, or run \"lanyard hooks install --docker --hook PATH\"", s.program())
	}
	out, err := output(ctx, "docker", "info", "--format", "{{json .CDISpecDirs}}")
	switch {
	case errors.Is(err, errNotInstalled):
	case err != nil:
		checks = append(checks, Check{"Docker", "files", Warning, "", err.Error()})
	case !bytes.Contains(out, []byte(`"/etc/cdi"`)):
		checks = append(checks, Check{"Docker", "files", Wrong, "", "Docker does not read /etc/cdi, and refuses the device " +
			CDIDevice + ": set \"features\": {\"cdi\": true} in /etc/docker/daemon.json, then run \"systemctl restart docker\""})
	}
	return checks
}

// DockerRunning returns the running containers of Docker. The list is empty if Docker is not
// installed.
func DockerRunning(ctx context.Context) ([]Container, error) {
	return running(ctx, "docker")
}
