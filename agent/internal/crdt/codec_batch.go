package crdt

import "encoding/binary"

// dict is the dictionary of one encoded piece: numbers by first use.
type dict struct {
	sites  map[SiteID]uint64
	names  map[string]uint64
	siteAt []SiteID
	nameAt []string
}

func newDict() *dict {
	return &dict{sites: map[SiteID]uint64{}, names: map[string]uint64{}}
}

func (d *dict) Site(s SiteID) uint64 {
	n, ok := d.sites[s]
	if !ok {
		n = uint64(len(d.siteAt))
		d.sites[s], d.siteAt = n, append(d.siteAt, s)
	}
	return n
}

func (d *dict) Name(s string) uint64 {
	n, ok := d.names[s]
	if !ok {
		n = uint64(len(d.nameAt))
		d.names[s], d.nameAt = n, append(d.nameAt, s)
	}
	return n
}

func (d *dict) SiteAt(n uint64) (SiteID, bool) {
	if n >= uint64(len(d.siteAt)) {
		return SiteID{}, false
	}
	return d.siteAt[n], true
}

func (d *dict) NameAt(n uint64) (string, bool) {
	if n >= uint64(len(d.nameAt)) {
		return "", false
	}
	return d.nameAt[n], true
}

// AppendBatch appends the wire form of b, which stands alone:
//
//	n x site | n x name | marks | n x row
//	row: table | key | record
func AppendBatch(dst []byte, b Batch) []byte {
	d := newDict()
	rows := binary.AppendUvarint(nil, uint64(len(b.Rows)))
	for _, r := range b.Rows {
		rows = binary.AppendUvarint(rows, d.Name(r.Table))
		rows = appendText(rows, r.Key)
		rows = AppendRecord(rows, r.Record, r.Writers, d, nil)
	}
	dst = binary.AppendUvarint(dst, uint64(len(d.siteAt)))
	for _, s := range d.siteAt {
		dst = append(dst, s[:]...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(d.nameAt)))
	for _, s := range d.nameAt {
		dst = appendText(dst, s)
	}
	return append(AppendKnown(dst, b.Marks), rows...)
}

// Batch reads a batch and checks each of its rows.
func (d *Decoder) Batch() Batch {
	dict := newDict()
	for range d.Count(uint64(len(SiteID{}))) {
		dict.siteAt = append(dict.siteAt, d.SiteID())
	}
	for range d.Count(1) {
		dict.nameAt = append(dict.nameAt, d.Text())
	}
	b := Batch{Marks: d.Known()}
	for range d.Count(8) {
		row := Row{Table: d.name(dict, d.Uvarint()), Key: d.Text()}
		row.Record, row.Writers = d.Record(dict, nil)
		if d.err != nil {
			return Batch{}
		}
		if err := row.Check(); err != nil {
			d.fail("%v", err)
			return Batch{}
		}
		b.Rows = append(b.Rows, row)
	}
	return b
}

// SiteID reads the 16 bytes of a site.
func (d *Decoder) SiteID() SiteID {
	var s SiteID
	copy(s[:], d.Bytes(uint64(len(s))))
	return s
}

// AppendKnown appends the wire form of k: n x (site, n x (gap before, length - 1)).
func AppendKnown(dst []byte, k Known) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(k)))
	for _, site := range k.Sites() {
		dst = append(dst, site[:]...)
		dst = binary.AppendUvarint(dst, uint64(len(k[site])))
		last := uint64(0)
		for _, r := range k[site] {
			dst = binary.AppendUvarint(dst, r.First-last)
			dst = binary.AppendUvarint(dst, r.Last-r.First)
			last = r.Last
		}
	}
	return dst
}

// Known reads a version vector and checks that it is one.
func (d *Decoder) Known() Known {
	k := Known{}
	for range d.Count(uint64(len(SiteID{})) + 1) {
		site := d.SiteID()
		if ranges := d.ranges(); len(ranges) > 0 && d.err == nil {
			k[site] = ranges
		}
	}
	return k
}

func (d *Decoder) ranges() Ranges {
	var out Ranges
	last := uint64(0)
	for i := range d.Count(2) {
		first := last + d.Uvarint()
		end := first + d.Uvarint()
		if first == 0 || first < last || end < first || i > 0 && first-last < 2 {
			d.fail("ranges out of order")
			return nil
		}
		out = append(out, Range{first, end})
		last = end
	}
	return out
}

func appendText(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}
