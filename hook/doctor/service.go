package doctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/network"
)

// service checks that the service can be reached, and that it runs the installed program.
func (d *Doctor) service(ctx context.Context, s subject, defs []*network.Definition) {
	conn, err := new(net.Dialer).DialContext(ctx, "unixpacket", d.Socket)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		state, who := OK, "root's containers start without it, and those of users do not"
		for _, def := range defs {
			if len(def.AllowUsers)+len(def.AllowGroups) > 0 {
				state, who = Wrong, fmt.Sprintf("the users that network %q allows cannot attach containers", def.Name)
				break
			}
		}
		s.add(state, "socket", "not running: %s: \"systemctl enable --now lanyard.socket\" starts it", who)
		return
	case errors.Is(err, unix.ECONNREFUSED):
		s.add(Wrong, "socket", "%s exists, and no process listens there: restart lanyard.socket, or \"lanyard serve\"",
			d.Socket)
		return
	case s.addErr("socket", err):
		return
	}
	conn.Close()
	s.add(OK, "socket", "%s", d.Socket)
	d.serviceProgram(s)
}

// serviceProgram checks that the file of the running service's program was not replaced or deleted.
func (d *Doctor) serviceProgram(s subject) {
	pid := lockHolder(filepath.Join(d.Run, "service.lock"))
	if pid == "" {
		return // systemd has the socket, and starts the service when it is needed
	}
	program, err := os.Readlink("/proc/" + pid + "/exe")
	if err != nil {
		return // it has ended
	}
	if other, err := inOtherNetns(pid); err == nil && other {
		s.add(Warning, "namespace", "process %s serves another network namespace than this one, so that hooks here go on "+
			"without it: start the service in the host's namespace", pid)
	}
	if was, gone := strings.CutSuffix(program, " (deleted)"); gone {
		s.add(Warning, "program", "process %s runs a version of %s that was replaced: \"systemctl restart lanyard\"; "+
			"containers keep running", pid, was)
		return
	}
	s.add(OK, "program", "%s, process %s", program, pid)
}

// inOtherNetns reports whether a process is in another network namespace than this one.
func inOtherNetns(pid string) (bool, error) {
	theirs, err := os.Stat("/proc/" + pid + "/ns/net")
	if err != nil {
		return false, err
	}
	ours, err := os.Stat("/proc/thread-self/ns/net")
	return err == nil && !os.SameFile(theirs, ours), err
}

// lockHolder returns the process that holds a lock on a file (flock(2), proc_locks(5)), or "".
func lockHolder(path string) (pid string) {
	var st unix.Stat_t
	f, err := os.Open("/proc/locks")
	if err != nil || unix.Stat(path, &st) != nil {
		return ""
	}
	defer f.Close()
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) == 8 && fields[1] == "FLOCK" && fields[5] == file {
			return fields[4]
		}
	}
	return ""
}
