package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/cni"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/service/wire"
)

const (
	// readTime is the time limit for receiving the request, and for sending the
	// reply. Both fit into a socket buffer.
	readTime = 2 * time.Second
	// workTime is the time limit for one request, with the wait in the queue. A hook
	// gives up after 10 seconds by default. Root's hooks name their own limit, up to rootTime.
	workTime = 30 * time.Second
	rootTime = time.Hour
	// acceptPause is the pause before the next accept(2) when the host or the process
	// has no file descriptors left.
	acceptPause = 50 * time.Millisecond
)

// Server attaches containers for root and for the authorized users that connect to it.
type Server struct {
	Root         hook.Attacher
	Host         cni.Host // for plugins, with Root
	Users        hook.CallerAttacher
	AllowList    *network.AllowList
	Networks     string       // directory of the definitions
	RootFailures Kept         // errors of root's containers
	Log          *slog.Logger // the full reason of every refusal

	scheduler scheduler
	failures  failures
	work      sync.WaitGroup
}

// Serve accepts callers on l until ctx ends. Then it closes l, finishes the requests in
// progress, and returns nil. It returns an error if accepting fails.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	a, err := newAcceptor(l)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = errors.Join(a.Close(), l.Close()) })
	defer stop()
	go pollAllowList(ctx, s.AllowList)
	for {
		fd, err := a.accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = unix.Close(fd)
			}
			s.work.Wait()
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS),
			errors.Is(err, unix.ENOMEM):
			s.Log.Error("cannot accept callers", "err", err)
			<-time.After(acceptPause)
		case errors.Is(err, unix.ECONNABORTED):
		case err != nil:
			s.work.Wait()
			return fmt.Errorf("accept callers: %w", err)
		default:
			s.handle(context.WithoutCancel(ctx), fd)
		}
	}
}

// handle registers the caller's connection and answers it in a new goroutine. A caller over its
// limits gets an error reply, and its request is not read: accepting must never wait for a caller,
// and must cost less than connecting.
func (s *Server) handle(ctx context.Context, fd int) {
	cred, err := peerOf(fd)
	if err != nil {
		s.Log.Debug("rejected a caller", "err", err)
		_ = unix.Close(fd)
		return
	}
	c := call{server: s, root: cred.Uid == 0}
	charged, excess := uint32(elsewhereBudgetUID), elsewhereLimitReply
	if c.root {
		c.elsewhere = sameHost(fd, cred)
	} else {
		charged, excess = s.budgetUID(fd, cred.Uid), rateLimitReply
	}
	limited := !c.root || c.elsewhere != nil
	if limited && !s.scheduler.spend(charged, time.Now()) {
		_, _ = unix.Write(fd, excess) // does not block: the socket buffer is empty
		_ = unix.Close(fd)
		return
	}
	c.log = s.Log.With("uid", cred.Uid, "pid", cred.Pid)
	if err := c.open(fd, cred); err != nil {
		c.log.Error("cannot accept the caller", "err", err)
		return
	}
	if limited {
		c.session, err = s.scheduler.connect(charged, c.conn)
	} else {
		c.session, err = s.scheduler.connectRoot(c.conn)
	}
	if err != nil {
		c.log.Debug("rejected a caller", "err", err)
		kind := byte(wire.Later)
		if c.elsewhere != nil {
			kind = wire.NotMine // it has no reason to wait
		}
		_ = sendText(c.conn, kind, err.Error()) // does not block either
		_ = c.conn.Close()
		return
	}
	s.work.Go(func() {
		defer s.scheduler.disconnect(c.session)
		defer func() { _ = c.conn.Close() }()
		c.answer(ctx)
	})
}
