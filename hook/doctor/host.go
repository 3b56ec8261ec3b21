package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// host checks the directories, the definitions, the records and the host's identity.
func (d *Doctor) host(ctx context.Context, s subject, broken []error) {
	for _, dir := range []string{d.Networks, d.Run} {
		checkDir(s, dir)
	}
	for _, err := range broken {
		s.add(Wrong, "definitions", "%v", err)
	}
	if recs, err := d.Attachments(ctx); !s.addErr("records", err) {
		s.add(OK, "records", "%d attachments", len(recs))
	}
	changes, err := d.LinkChanges(ctx)
	s.addErr("links", err)
	for _, h := range changes {
		s.add(Warning, "links", "%s", h)
	}
	if _, err := d.HostID(); s.addErr("identity", err) {
		return
	}
	from := "/etc/machine-id"
	if _, err := os.Stat(d.Identity); err == nil {
		from = d.Identity
	}
	s.add(OK, "identity", "from %s: a clone of this machine with the same one gives containers the same MACs", from)
}

// checkDir checks that only root can write to a directory, and that root can. A directory that does
// not exist is created when it is needed.
func checkDir(s subject, dir string) {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		checkWritable(s, dir, filepath.Dir(dir))
		return
	}
	var st unix.Stat_t
	switch {
	case s.addErr("directories", err):
	case !info.IsDir():
		s.add(Wrong, "directories", "%s is not a directory: move the file away", dir)
	case unix.Stat(dir, &st) == nil && st.Uid != 0 || info.Mode().Perm()&0o022 != 0:
		s.add(Wrong, "directories", "%s can be written to by users, who can then define networks and change records: "+
			"\"chown root %[1]s; chmod go-w %[1]s\"", dir)
	default:
		checkWritable(s, dir, dir)
	}
}

// checkWritable checks that this process can write below at, for dir.
func checkWritable(s subject, dir, at string) {
	for at != "/" {
		if _, err := os.Stat(at); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		at = filepath.Dir(at)
	}
	if err := unix.Access(at, unix.W_OK); err != nil {
		s.add(Wrong, "directories", "%s cannot be written to: %s: %v: mount it writable", dir, at, err)
		return
	}
	s.add(OK, "directories", "%s", dir)
}
