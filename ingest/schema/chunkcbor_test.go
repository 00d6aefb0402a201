package schema

import (
	"strings"
	"testing"
)

func TestFastAndPlainAgreeOnDagCBOR(t *testing.T) {
	const (
		mh   = "\x58\x22\x12\x20abcdefghijklmnopqrstuvwxyz012345"
		link = "\xd8\x2a\x58\x25\x00\x01\x71\x12\x20abcdefghijklmnopqrstuvwxyz012345"
	)
	d := NewChunkDecoder(DefaultLimits)
	for _, tt := range []struct {
		name, block string
		fast, good  bool
	}{
		{"canonical", "\xa2\x64Next" + link + "\x67Entries\x82" + mh + mh, true, true},
		{"no next", "\xa1\x67Entries\x81" + mh, true, true},
		{"empty", "\xa1\x67Entries\x80", true, true},
		{"next last", "\xa2\x67Entries\x81" + mh + "\x64Next" + link, true, true},
		{"other lengths", "\xa1\x67Entries\x83\x42\x00\x00\x40\x58\x18" + strings.Repeat("a", 24), true, true},
		{"long list", "\xa1\x67Entries\x98\x18" + strings.Repeat("\x40", 24), true, true},
		{"tag on the list", "\xa1\x67Entries\xc5\x80", false, true},
		{"tag on a key", "\xa1\xc5\x67Entries\x80", false, true},

		{"nothing", "", false, false},
		{"list", "\x80", false, false},
		{"empty map", "\xa0", false, false},
		{"next only", "\xa1\x64Next" + link, false, false},
		{"entries twice", "\xa2\x67Entries\x80\x67Entries\x80", false, false},
		{"next twice", "\xa3\x67Entries\x80\x64Next" + link + "\x64Next" + link, false, false},
		{"unknown key", "\xa2\x67Entries\x80\x65Other\x80", false, false},
		{"too many keys announced", "\xa2\x67Entries\x80", false, false},
		{"too few keys announced", "\xa1\x67Entries\x80\x64Next" + link, false, false},
		{"more after the node", "\xa1\x67Entries\x80\x00", false, false},
		{"too few entries", "\xa1\x67Entries\x82" + mh, false, false},
		{"truncated entry", "\xa1\x67Entries\x81" + mh[:20], false, false},
		{"length not the shortest", "\xa1\x67Entries\x81\x58\x02\x00\x00", false, false},
		{"count not the shortest", "\xa1\x67Entries\x98\x01\x40", false, false},
		{"indefinite list", "\xa1\x67Entries\x9f\xff", false, false},
		{"indefinite map", "\xbf\x67Entries\x80\xff", false, false},
		{"indefinite bytes", "\xa1\x67Entries\x81\x5f\x41a\xff", false, false},
		{"huge count", "\xa1\x67Entries\x9b\x7f\xff\xff\xff\xff\xff\xff\xff", false, false},
		{"count above 63 bits", "\xa1\x67Entries\x9b\xff\xff\xff\xff\xff\xff\xff\xff", false, false},
		{"huge entry", "\xa1\x67Entries\x81\x5b\x7f\xff\xff\xff\xff\xff\xff\xff", false, false},
		{"huge map", "\xbb\x7f\xff\xff\xff\xff\xff\xff\xff\x67Entries\x80", false, false},
		{"text as entry", "\xa1\x67Entries\x81\x61a", false, false},
		{"tag on an entry", "\xa1\x67Entries\x81\xc5\x42\x00\x00", false, false},
		{"null entries", "\xa1\x67Entries\xf6", false, false},
		{"undefined entries", "\xa1\x67Entries\xf7", false, false},
		{"null next", "\xa2\x67Entries\x80\x64Next\xf6", false, false},
		{"link without tag", "\xa2\x67Entries\x80\x64Next" + link[2:], false, false},
		{"link of another multibase", "\xa2\x67Entries\x80\x64Next\xd8\x2a\x42\x01\x01", false, false},
		{"empty link", "\xa2\x67Entries\x80\x64Next\xd8\x2a\x40", false, false},
		{"link as entry", "\xa1\x67Entries\x81" + link, false, false},
		{"int as entry", "\xa1\x67Entries\x81\x20", false, false},
		{"large int as entry", "\xa1\x67Entries\x81\x1b\xff\xff\xff\xff\xff\xff\xff\xff", false, false},
		{"float as entry", "\xa1\x67Entries\x81\xfb12345678", false, false},
		{"cut link", "\xa2\x67Entries\x80\x64Next" + link[:20], false, false},
		{"link not a CID", "\xa2\x67Entries\x80\x64Next\xd8\x2a\x42\x00\x05", false, false},
		{"int as link", "\xa2\x67Entries\x80\x64Next\xd8\x2a\x01", false, false},
		{"dag-json link", "\xa2\x67Entries\x80\x64Next\xa1\x61/\x78\x3d" + cidOne, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			block := []byte(tt.block)
			_, _, err := decodeBoth(t, d, LinkOf(DagCBOR, block), block)
			if (err == nil) != tt.good {
				t.Errorf("%x: %v", block, err)
			}
			if usesWalk(d, DagCBOR, block) != tt.fast {
				t.Errorf("%x: fast is %t", block, !tt.fast)
			}
			if _, err := referenceDecode[referenceChunk](DagCBOR, "EntryChunk", block); (err == nil) != tt.good {
				t.Errorf("%x: reference: %v", block, err)
			}
		})
	}
}
