package schema

import (
	"errors"
	"testing"

	"github.com/ipfs/go-cid"
)

func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		name  string
		codec Codec
		block string
		want  Kind
	}{
		{"entry chunk", DagJSON, `{"Entries":[]}`, KindEntryChunk},
		{"next first", DagJSON, `{"Next":{"/":"x"},"Entries":[]}`, KindEntryChunk},
		{"empty map", DagJSON, ` { } `, KindEntryChunk},
		{"other keys", DagJSON, `{"a":1,"b":[{"Signature":1}],"c":{"hamt":2},"d":"Signature","e":-1.5e3,"f":null}`, KindEntryChunk},
		{"ad", DagJSON, `{"Addresses":[],"Entries":{"/":"x"},"Signature":{}}`, KindAdvertisement},
		{"ad with entries first", DagJSON, "{\"Entries\"\n:\t{\"/\":\"x\"} , \"Signature\" : 1}", KindAdvertisement},
		{"ad after quotes", DagJSON, `{"a":"\"}\\","Signature":1}`, KindAdvertisement},
		{"ad with escaped key", DagJSON, `{"\u0053ignature":1}`, KindAdvertisement},
		{"HAMT", DagJSON, `{"bucketSize":3,"hamt":{}}`, KindHAMT},
		{"list", DagJSON, ` []`, KindUnknown},
		{"text", DagJSON, `"Signature"`, KindUnknown},
		{"entry chunk", DagCBOR, "\xa1\x67Entries\x80", KindEntryChunk},
		{"next first", DagCBOR, "\xa2\x64Next\xd8\x2a\x42\x00\x01\x67Entries\x80", KindEntryChunk},
		{"empty map", DagCBOR, "\xa0", KindEntryChunk},
		{"other keys", DagCBOR, "\xa4\x61a\x81\xa1\x69Signature\x01\x61b\xa1\x64hamt\x20\x61c\xf6\x61d\xfb12345678", KindEntryChunk},
		{"ad", DagCBOR, "\xa2\x67Entries\xd8\x2a\x42\x00\x01\x69Signature\x40", KindAdvertisement},
		{"HAMT", DagCBOR, "\xa2\x61a\x39\xff\xff\x64hamt\xa0", KindHAMT},
		{"list", DagCBOR, "\x80", KindUnknown},
	} {
		t.Run(tt.codec.String()+" "+tt.name+" is "+tt.want.String(), func(t *testing.T) {
			got, err := Classify(LinkOf(tt.codec, []byte(tt.block)), []byte(tt.block))
			if err != nil || got != tt.want {
				t.Errorf("%v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestClassifyRefusesWhatHasNoKind(t *testing.T) {
	for _, tt := range []struct {
		name  string
		codec Codec
		block string
	}{
		{"nothing", DagJSON, ""},
		{"space", DagJSON, "  "},
		{"open map", DagJSON, "{"},
		{"open key", DagJSON, `{"Signature`},
		{"open escape", DagJSON, `{"Signature\`},
		{"bad escape", DagJSON, `{"Signatur\x":1}`},
		{"no colon", DagJSON, `{"Signature" 1}`},
		{"open value", DagJSON, `{"a":[1,{"b":2}`},
		{"number as key", DagJSON, `{1:2}`},
		{"nothing", DagCBOR, ""},
		{"open map", DagCBOR, "\xa1"},
		{"open key", DagCBOR, "\xa1\x69Sig"},
		{"no value", DagCBOR, "\xa1\x69Signature"},
		{"int as key", DagCBOR, "\xa1\x01\x01"},
		{"huge key", DagCBOR, "\xa1\x7b\xff\xff\xff\xff\xff\xff\xff\xffa"},
		{"huge value", DagCBOR, "\xa1\x61a\x5b\xff\xff\xff\xff\xff\xff\xff\xffa"},
		{"huge list", DagCBOR, "\xa1\x61a\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x01"},
		{"indefinite", DagCBOR, "\xbf\x61a\x01\xff"},
		{"open tag", DagCBOR, "\xa1\x61a\xc5"},
	} {
		t.Run(tt.codec.String()+" "+tt.name, func(t *testing.T) {
			kind, err := Classify(LinkOf(tt.codec, []byte(tt.block)), []byte(tt.block))
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%v, %v", kind, err)
			}
		})
	}
	if _, err := Classify(NoEntries, nil); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	if _, err := Classify(cid.Undef, nil); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	if _, err := Classify(LinkOf(DagJSON, nil), make([]byte, MaxBlockBytes+1)); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
}
