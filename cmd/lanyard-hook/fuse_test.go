package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What the kernel asks of a file system in user space (include/uapi/linux/fuse.h).
const (
	fuseLookup  = 1
	fuseForget  = 2
	fuseGetattr = 3
	fuseOpen    = 14
	fuseFlush   = 25
	fuseInit    = 26
	fuseOpenDir = 27

	fuseHeader = 40 // struct fuse_in_header
)

// hangingFS is a FUSE mount of one file, "file". Its server never answers some threads
// that close the file: they hang, without reaction to signals, until the test ends.
type hangingFS struct {
	dir   string
	fd    int
	hangs func(tid int) bool
	hung  chan int // threads
}

func mountHanging(t *testing.T, hangs func(tid int) bool) *hangingFS {
	t.Helper()
	fs := &hangingFS{dir: t.TempDir(), hangs: hangs, hung: make(chan int, 100)}
	var err error
	fs.fd, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	// When the server ends, all hanging threads continue.
	t.Cleanup(func() { unix.Close(fs.fd) })
	must(t, unix.Mount("hanging", fs.dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV,
		fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fs.fd)))
	done := make(chan struct{})
	t.Cleanup(func() {
		must(t, unix.Unmount(fs.dir, unix.MNT_FORCE|unix.MNT_DETACH)) // and the connection breaks
		<-done
	})
	go func() {
		defer close(done)
		for fs.serve() == nil {
		}
	}()
	return fs
}

// serve answers one request.
func (fs *hangingFS) serve() error {
	var buf [64 << 10]byte // FUSE_MIN_READ_BUFFER is 8192
	n, err := unix.Read(fs.fd, buf[:])
	if err == unix.EINTR || err == unix.ENOENT {
		return nil // the request was interrupted
	}
	if err != nil || n < fuseHeader {
		return fmt.Errorf("%d bytes: %w", n, err)
	}
	le := binary.NativeEndian
	node := le.Uint64(buf[16:])
	attr := make([]byte, 88)
	le.PutUint64(attr, node)
	le.PutUint32(attr[60:], unix.S_IFDIR|0o755)
	le.PutUint32(attr[64:], 1)
	var body []byte
	var errno unix.Errno
	switch le.Uint32(buf[4:]) {
	case fuseInit:
		body = make([]byte, 64)
		le.PutUint32(body, 7)
		le.PutUint32(body[4:], 31)
		le.PutUint32(body[20:], 4096) // max_write
	case fuseLookup:
		body = append(make([]byte, 40), attr...)
		le.PutUint64(body, 2)
		le.PutUint64(body[40:], 2)
		le.PutUint32(body[100:], unix.S_IFREG|0o644)
	case fuseGetattr:
		if node != 1 {
			le.PutUint32(attr[60:], unix.S_IFREG|0o644)
		}
		body = append(make([]byte, 16), attr...)
	case fuseOpen, fuseOpenDir:
		body = make([]byte, 16)
	case fuseForget:
		return nil // wants no answer
	case fuseFlush:
		if tid := int(le.Uint32(buf[32:])); fs.hangs(tid) {
			fs.hung <- tid
			return nil // gets none
		}
	default:
		errno = unix.ENOSYS
	}
	out := le.AppendUint32(nil, uint32(16+len(body)))
	out = le.AppendUint32(out, uint32(-int32(errno)))
	out = append(append(out, buf[8:16]...), body...)
	_, err = unix.Write(fs.fd, out)
	if err == unix.ENOENT {
		err = nil // no process waits for it any more
	}
	return err
}

// TestServiceHangingDescriptor sends a descriptor that hangs the process that closes it.
// The service never receives it, so no caller is delayed.
func TestServiceHangingDescriptor(t *testing.T) {
	b, _ := lanBrokered(t, direct)
	var victim atomic.Int64
	fs := mountHanging(t, func(tid int) bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d/task/%d", b.cmd.Process.Pid, tid))
		return err == nil || int64(tid) == victim.Load()
	})
	var sent []int
	for path, flags := range map[string]int{fs.dir + "/file": unix.O_RDONLY, fs.dir: unix.O_RDONLY,
		fs.dir + "/": unix.O_PATH} {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(fd)
		sent = append(sent, fd)
	}
	// More than the service works on at a time, and more than may wait.
	for range 200 {
		b.ask(alice, []byte(`{"version":2,"verb":"attach","container":"c1","pid":1,"wants":[{"network":"nope"}]}`),
			unix.UnixRights(sent...))
	}
	b.works("after")
	select {
	case tid := <-fs.hung:
		t.Errorf("thread %d of the service's has closed it", tid)
	default:
	}
	b.stop() // without an error
	// A process that had received it would hang.
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		runtime.LockOSThread() // and never unlocked
		fd, err := unix.Open(fs.dir+"/file", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return
		}
		victim.Store(int64(unix.Gettid()))
		unix.Close(fd)
	}()
	select {
	case <-fs.hung:
	case <-closed:
		t.Fatal("closing the file does not hang")
	}
	select {
	case <-closed:
		t.Error("closing the file hung, and does not any more")
	case <-time.After(50 * time.Millisecond):
	}
}
