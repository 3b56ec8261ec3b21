package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Pin creates a network namespace, runs prepare inside it and mounts it at path, which keeps
// it alive. If path is a network namespace already, Pin does nothing.
func Pin(path string, prepare func() error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("create network namespace %q: %w", path, err)
		}
	}()
	if fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0); err == nil {
		defer unix.Close(fd)
		if _, err := identify(fd); err == nil {
			return nil
		}
	}
	if err = os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	unix.Close(fd)
	done := make(chan error)
	go func() {
		// Never unlocked: the thread is in the new namespace, and ends.
		runtime.LockOSThread()
		done <- pinNew(path, prepare)
	}()
	return <-done
}

func pinNew(path string, prepare func() error) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return explainErrno(err)
	}
	if err := prepare(); err != nil {
		return err
	}
	return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
}
