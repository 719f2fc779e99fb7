package store

import (
	"database/sql/driver"
	"sync"

	"uncloud/agent/internal/crdt"
)

// dict is the file's dictionary of sites and names. The writer adds to it;
// readers of any snapshot may look up, since numbers are never given twice.
type dict struct {
	mu     sync.RWMutex
	sites  map[crdt.SiteID]uint64
	names  map[string]uint64
	siteAt map[uint64]crdt.SiteID
	nameAt map[uint64]string
	fresh  []func(*conn) error // inserts that the current transaction owes
}

// Site is the number of a site; a new one gets the next. Only the writer may
// ask, so nobody else changes the maps meanwhile.
func (d *dict) Site(s crdt.SiteID) uint64 {
	if n, ok := d.sites[s]; ok {
		return n
	}
	return d.addSite(s)
}

func (d *dict) addSite(s crdt.SiteID) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := uint64(len(d.sites))
	d.sites[s], d.siteAt[n] = n, s
	d.fresh = append(d.fresh, func(c *conn) error {
		return c.exec("INSERT INTO _site (n, site) VALUES (?, ?)", int64(n), s[:])
	})
	return n
}

// Name is the number of a name, as Site is of a site.
func (d *dict) Name(s string) uint64 {
	if n, ok := d.names[s]; ok {
		return n
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n := uint64(len(d.names))
	d.names[s], d.nameAt[n] = n, s
	d.fresh = append(d.fresh, func(c *conn) error {
		return c.exec("INSERT INTO _name (n, name) VALUES (?, ?)", int64(n), s)
	})
	return n
}

// find is the number of a name, without giving it one.
func (d *dict) find(name string) (uint64, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n, ok := d.names[name]
	return n, ok
}

// findSite is the number of a site, without giving it one.
func (d *dict) findSite(site crdt.SiteID) (uint64, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n, ok := d.sites[site]
	return n, ok
}

func (d *dict) SiteAt(n uint64) (crdt.SiteID, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	s, ok := d.siteAt[n]
	return s, ok
}

func (d *dict) NameAt(n uint64) (string, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	s, ok := d.nameAt[n]
	return s, ok
}

// flush writes what was added since the last flush.
func (d *dict) flush(c *conn) error {
	d.mu.Lock()
	fresh := d.fresh
	d.fresh = nil
	d.mu.Unlock()
	for _, insert := range fresh {
		if err := insert(c); err != nil {
			return err
		}
	}
	return nil
}

// load replaces the content by what the file holds.
func (d *dict) load(c *conn) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fresh = nil
	d.sites, d.siteAt = map[crdt.SiteID]uint64{}, map[uint64]crdt.SiteID{}
	d.names, d.nameAt = map[string]uint64{}, map[uint64]string{}
	err := c.query("SELECT n, site FROM _site", nil, func(row []driver.Value) error {
		var s crdt.SiteID
		copy(s[:], row[1].([]byte))
		n := uint64(row[0].(int64))
		d.sites[s], d.siteAt[n] = n, s
		return nil
	})
	if err != nil {
		return err
	}
	return c.query("SELECT n, name FROM _name", nil, func(row []driver.Value) error {
		n, s := uint64(row[0].(int64)), row[1].(string)
		d.names[s], d.nameAt[n] = n, s
		return nil
	})
}
