package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"uncloud/agent/internal/crdt"
	"uncloud/agent/internal/store"
	statesync "uncloud/agent/internal/sync"
)

type nodeOptions struct {
	dir, listen, schemaFile, schema, site, cluster string
	log                                            *slog.Logger
}

// node is a store with its replication. Its address is also its name among
// its peers.
type node struct {
	address  string
	log      *slog.Logger
	listener net.Listener
	store    *store.Store
	sync     *statesync.Syncer
	offset   atomic.Int64 // of the clock, in milliseconds

	mu    sync.Mutex
	peers map[string]bool
	cut   map[string]bool
}

// openNode opens the store and begins to listen.
func openNode(ctx context.Context, o nodeOptions) (n *node, err error) {
	n = &node{log: o.log, peers: map[string]bool{}, cut: map[string]bool{}}
	if err := onLoopback(o.listen); err != nil {
		return nil, err
	}
	if o.schemaFile != "" {
		text, err := os.ReadFile(o.schemaFile)
		if err != nil {
			return nil, fmt.Errorf("read the schema: %w", err)
		}
		o.schema = string(text)
	}
	if n.store, err = n.openStore(ctx, o); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.store.Close())
		}
	}()
	if n.listener, err = net.Listen("tcp", o.listen); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", o.listen, err)
	}
	n.address = n.listener.Addr().String()
	n.sync, err = statesync.New(statesync.Options{
		Cluster: o.cluster, Machine: n.address, Store: n.store, Logger: o.log, Dial: n.dial, Admit: n.admit,
	})
	if err != nil {
		return nil, errors.Join(err, n.listener.Close())
	}
	n.store.OnCommit(func(c store.Commit) {
		if c.Local {
			n.sync.Committed(c.Batch)
		}
	})
	return n, nil
}

func onLoopback(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !ap.Addr().IsLoopback() {
		return fmt.Errorf("%q is no address on loopback such as 127.0.0.1:7000; a storenode asks nobody who they are", address)
	}
	return nil
}

func (n *node) openStore(ctx context.Context, o nodeOptions) (*store.Store, error) {
	so := store.Options{Dir: o.dir, Schema: o.schema, Logger: o.log, Clock: n.now}
	var site crdt.SiteID
	if o.site != "" {
		var err error
		if site, err = crdt.ParseSiteID(o.site); err != nil {
			return nil, err
		}
		so.Random = io.MultiReader(bytes.NewReader(site[:]), rand.Reader)
	}
	st, err := store.Open(ctx, so)
	if err != nil {
		return nil, err
	}
	if o.site != "" && st.Site() != site {
		return nil, errors.Join(fmt.Errorf("the database in %s writes as site %s", o.dir, st.Site()), st.Close())
	}
	return st, nil
}

func (n *node) now() time.Time {
	return time.Now().Add(time.Duration(n.offset.Load()) * time.Millisecond)
}

// run serves until ctx ends.
func (n *node) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	web, peers := newMux(n.listener)
	server := &http.Server{Handler: n.handler(), ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	done := make(chan error, 2)
	go func() { done <- n.sync.Run(ctx, peers) }()
	go func() { done <- server.Serve(web) }()
	select {
	case <-ctx.Done():
	case err := <-done:
		done <- err
		cancel()
	}
	errs := []error{server.Close(), n.listener.Close()}
	for range 2 {
		errs = append(errs, <-done)
	}
	errs = append(errs, n.store.Close())
	for i, err := range errs {
		if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
			errs[i] = nil
		}
	}
	return errors.Join(errs...)
}

var errCut = errors.New("the link was cut by hand")

// admit is asked about each machine that greets.
func (n *node) admit(machine string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut[machine] {
		return errCut
	}
	return nil
}

func (n *node) dial(ctx context.Context, machine string, addr statesync.PeerAddr) (net.Conn, error) {
	if err := n.admit(machine); err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", string(addr))
}

// setPeers adds and removes peers.
func (n *node) setPeers(add, remove []string) error {
	for _, p := range add {
		if err := onLoopback(p); err != nil {
			return err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range add {
		n.peers[p] = true
	}
	for _, p := range remove {
		delete(n.peers, p)
	}
	n.sync.SetPeers(addresses(n.peers))
	return nil
}

func addresses(peers map[string]bool) map[string]statesync.PeerAddr {
	out := map[string]statesync.PeerAddr{}
	for p := range peers {
		out[p] = statesync.PeerAddr(p)
	}
	return out
}

// setLink cuts or heals the link to a peer, whoever called.
func (n *node) setLink(peer string, up bool) {
	n.mu.Lock()
	if up {
		delete(n.cut, peer)
	} else {
		n.cut[peer] = true
	}
	with := maps.Clone(n.peers)
	n.mu.Unlock()
	if !up {
		// Who is taken from the peers is hung up on.
		with[peer] = true
		n.sync.SetPeers(addresses(with))
		delete(with, peer)
	}
	n.sync.SetPeers(addresses(with))
	n.sync.Poke(peer)
}
