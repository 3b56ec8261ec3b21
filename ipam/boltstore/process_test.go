package boltstore_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
)

const processes, claimsEach = 32, 8

// claimSome is the role of a process that claims addresses and prints them.
func claimSome(db *boltstore.DB, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for i := range claimsEach {
		a, err := db.Next(ctx, poolName, pool12, lease(fmt.Sprintf("%s-%d", name, i)))
		if err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, a)
	}
	return nil
}

func TestManyProcesses(t *testing.T) {
	_, path := tempDB(t)
	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	for i := range processes {
		wg.Go(func() {
			out, err := command("claim", path, fmt.Sprint(i)).Output()
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, a := range strings.Fields(string(out)) {
				got[a]++
			}
		})
	}
	wg.Wait()
	for a, n := range got {
		if n > 1 {
			t.Errorf("%s was given out %d times", a, n)
		}
	}
	if len(got) != processes*claimsEach {
		t.Errorf("%d addresses were given out, want %d", len(got), processes*claimsEach)
	}
	mustCheck(t, path)
}

// churn is the role of a process that claims, releases and writes rows until it is killed. It
// prints "+address id" once it has an address, and "- id" before it releases it.
func churn(db *boltstore.DB, name string) error {
	ctx := context.Background()
	var mine []string
	for i := 0; ; i++ {
		id := fmt.Sprintf("%s-%d", name, i)
		if err := db.Hold(ctx, func() error {
			if err := db.Update(ctx, func(tx *boltstore.Tx) error { return tx.Put("attachments", id, []byte(id)) }); err != nil {
				return err
			}
			a, err := db.Next(ctx, poolName, pool12, lease(id))
			fmt.Fprintln(os.Stdout, "+"+a.String(), id)
			return err
		}); err != nil {
			return err
		}
		mine = append(mine, id)
		if len(mine) > 20 {
			fmt.Fprintln(os.Stdout, "-", mine[0])
			if err := db.Release(ctx, poolName, lease(mine[0]).Owner, time.Duration(i%2)*time.Minute); err != nil {
				return err
			}
			mine = mine[1:]
		}
	}
}

// TestKilled kills processes in the middle of their work. They must hold every address that they
// were given, and the file must be undamaged.
func TestKilled(t *testing.T) {
	db, path := tempDB(t)
	rounds := 120
	if testing.Short() {
		rounds = 30
	}
	for round := range rounds {
		if round%10 == 0 { // so that some are killed while they create the file
			if err := errors.Join(os.RemoveAll(path), os.RemoveAll(path+".lock")); err != nil {
				t.Fatal(err)
			}
		}
		held := killSome(t, path, fmt.Sprint(round))
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			continue
		}
		mustCheck(t, path)
		owners := map[string]netip.Addr{}
		for _, l := range mustLeases(t, db) {
			if l.State == ipam.Held {
				owners[l.Owner.Attachment] = l.Addr
			}
		}
		for id, a := range held {
			if owners[id].String() != a {
				t.Fatalf("round %d: %s was given %s, and holds %s", round, id, a, owners[id])
			}
		}
	}
}

// killSome runs two processes, kills them after some microseconds, and returns the addresses that
// they know they hold, by id.
func killSome(t *testing.T, path, round string) (held map[string]string) {
	t.Helper()
	var outs [2]bytes.Buffer
	var cmds [2]*exec.Cmd
	for i := range cmds {
		cmds[i] = command("churn", path, fmt.Sprintf("%s-%d", round, i))
		cmds[i].Stdout = &outs[i]
		if err := cmds[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range cmds {
		<-time.After(time.Duration(rand.N(20_000)) * time.Microsecond) // the moment matters, not the length
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	held = map[string]string{}
	for i, c := range cmds {
		if err := c.Wait(); err == nil || c.ProcessState.Exited() {
			t.Fatalf("%v before it was killed", err)
		}
		lines := bufio.NewScanner(&outs[i])
		for lines.Scan() {
			switch what, id, _ := strings.Cut(lines.Text(), " "); {
			case what == "-":
				delete(held, id)
			case id != "":
				held[id] = what[1:]
			}
		}
	}
	return held
}

// hog is the role of a long-lived process whose goroutines hold the file without a pause, each
// before the last one has left.
func hog(db *boltstore.DB, name string) error {
	ctx := context.Background()
	errs := make(chan error)
	for g := range 4 {
		go func() {
			for i := 0; ; i++ {
				err := db.Hold(ctx, func() error {
					for range 5 {
						if err := db.Update(ctx, func(tx *boltstore.Tx) error {
							return tx.Put("hog", fmt.Sprint(name, g), nil)
						}); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					errs <- err
				}
				if g == 0 && i == 10 {
					fmt.Fprintln(os.Stdout, "busy")
				}
			}
		}()
	}
	return <-errs
}

func TestNoProcessStarves(t *testing.T) {
	db, path := tempDB(t)
	for i := range 2 {
		c := command("hog", path, fmt.Sprint(i))
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = c.Process.Kill()
			_ = c.Wait()
		})
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	var worst time.Duration
	for i := range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		began := time.Now()
		_, err := db.Next(ctx, poolName, pool12, lease(fmt.Sprint(i)))
		cancel()
		if err != nil {
			t.Fatalf("visit %d: %v", i, err)
		}
		worst = max(worst, time.Since(began))
	}
	t.Logf("the longest of 20 waits: %s", worst)
}

func TestWaitEndsWithContext(t *testing.T) {
	db, path := tempDB(t)
	other := boltstore.Open(path) // another descriptor waits as another process does
	for _, waiter := range []*boltstore.DB{other, db} {
		in, leave := make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := db.Update(t.Context(), func(*boltstore.Tx) error {
				close(in)
				<-leave
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
		<-in
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, err := waiter.Next(ctx, poolName, pool12, lease("a"))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), path) {
			t.Errorf("got %v, want context.DeadlineExceeded", err)
		}
		close(leave)
		wg.Wait()
		// A wait that was given up does not keep the lock that it gets afterwards.
		mustNext(t, db, "b")
		mustNext(t, other, "c")
	}
}
