package find

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// vector returns the body named name of testdata/find.json.
func vector(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/find.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Vectors []struct{ Name, Body string } }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	for _, v := range file.Vectors {
		if v.Name == name {
			return v.Body
		}
	}
	t.Fatalf("no vector %s", name)
	return ""
}

// The identities and contents of the vectors.
var (
	provider  = mustInfo("12D3KooWF2uBBKjGJA7LqUWjAcXcnwkAjXjBQDKFTafDkfgCUJDw", "/ip4/203.0.113.7/tcp/24001")
	extended1 = mustInfo("12D3KooWJVDiU86JfSLGRZmkQrbBqCW4zUxopxxoo1hYSePJ6M8q", "/ip4/198.51.100.1/tcp/1001", "/dns4/gw.example.com/tcp/443/https")
	extended2 = mustInfo("12D3KooWMFQLpU6nWjR2c8TRaiYZeMzrq7eUJ6Qhh9fybxMxqLEh", "/ip4/198.51.100.2/tcp/1002")
	publisher = mustInfo("12D3KooWKEvyT7M7RiFGbjAedrZFHQsxzss2aJ3XGTxib8MW2AXP", "/dns4/publisher.example.com/tcp/443/https/http-path/ipni%2Fprovider")
	noAddress = mustInfo("16Uiu2HAm6q9gC8fdR7C1SUhQ4p6KXH57ZXE5gK6XUs3cPLUdCp2R")

	bitswap   = []byte{0x80, 0x12}
	gateway   = []byte{0xa0, 0x12, 0x00}
	graphsync = mustBase64("kBKjaFBpZWNlQ0lE2CpYKAABgeIDkiAg/GY3fzWzeAplNo0No/4YYu/5+zbbHUFs57lMLhBi6A5sVmVyaWZpZWREZWFs9W1GYXN0UmV0cmlldmFs9A==")

	mhA  = mustMultihash("QmTP8tHNMPGJVwvTrREQPUa1JKkBkTF8ve7UVScxVFb9Lb")
	mhB  = mustMultihash("Qmc3MinhuW8H8SuUvh7ZC7sXj7jcx1UasKBdHsugjBgHns")
	adID = cid.MustParse("baguqeera2ocl5mgh7zoitqrmfykahhhsgsgl7o53oluagt7ffqvaxxrazjiq")
)

func mustInfo(id string, addrs ...string) peer.AddrInfo {
	decoded, err := peer.Decode(id)
	if err != nil {
		panic(err)
	}
	info := peer.AddrInfo{ID: decoded, Addrs: []multiaddr.Multiaddr{}}
	for _, addr := range addrs {
		info.Addrs = append(info.Addrs, multiaddr.StringCast(addr))
	}
	return info
}

func mustBase64(s string) []byte {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func mustMultihash(s string) multihash.Multihash {
	mh, err := multihash.FromB58String(s)
	if err != nil {
		panic(err)
	}
	return mh
}

func result(contextID string, md []byte, info peer.AddrInfo) ProviderResult {
	return ProviderResult{ContextID: []byte(contextID), Metadata: md, Provider: &info}
}

var extendedResults = []ProviderResult{
	result("context-one", bitswap, provider),
	result("context-one", gateway, extended1),
	result("context-one", bitswap, extended2),
}

var compare = cmp.Options{
	cmp.Comparer(cid.Cid.Equals),
	cmp.Comparer(multiaddr.Multiaddr.Equal),
	cmpopts.EquateEmpty(),
}

// TestVectorsMarshalByteForByte marshals the vectors' values, and reads and
// marshals them again.
func TestVectorsMarshalByteForByte(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	full := ProviderInfo{
		AddrInfo:              provider,
		LastAdvertisement:     adID,
		LastAdvertisementTime: at,
		Lag:                   7,
		Publisher:             &publisher,
		ExtendedProviders: &ExtendedProviders{
			Providers: []peer.AddrInfo{extended1, provider},
			Contextual: []ContextualExtendedProviders{
				{Override: true, ContextID: "context-one", Providers: []peer.AddrInfo{extended2}, Metadatas: [][]byte{bitswap}},
				{ContextID: "\x00\xff\xfea", Providers: []peer.AddrInfo{extended1}, Metadatas: [][]byte{nil}},
			},
			Metadatas: [][]byte{gateway, nil},
		},
		FrozenAt:      adID,
		FrozenAtTime:  at,
		Inactive:      true,
		LastError:     "example",
		LastErrorTime: at.Add(time.Second),
	}
	tests := []struct {
		name  string
		value any
		read  any
	}{
		{"find-single", Response{[]MultihashResult{{mhA, extendedResults[:1]}}}, &Response{}},
		{"find-extended", Response{[]MultihashResult{{mhA, extendedResults}}}, &Response{}},
		{"find-multi", Response{[]MultihashResult{
			{mhA, extendedResults[:1]},
			{mhB, []ProviderResult{result("", graphsync, noAddress)}},
		}}, &Response{}},
		{"find-empty", Response{}, &Response{}},
		{"provider-info-full", full, nil},
		{"provider-info-minimal", ProviderInfo{AddrInfo: noAddress}, &ProviderInfo{}},
		{"providers-empty-storetheindex", []ProviderInfo{}, &[]ProviderInfo{}},
		{"providers-empty-indexstar", []ProviderInfo(nil), &[]ProviderInfo{}},
		{"stats", Stats{EntriesEstimate: 12345, EntriesCount: 12000}, &Stats{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := vector(t, test.name)
			got, err := json.Marshal(test.value)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, string(got)); diff != "" {
				t.Fatalf("-want +got\n%s", diff)
			}
			if test.read == nil {
				return
			}
			if err := json.Unmarshal(got, test.read); err != nil {
				t.Fatal(err)
			}
			if again, _ := json.Marshal(test.read); string(again) != want {
				t.Errorf("read and written again: %s", again)
			}
		})
	}

	t.Run("find-extended-ndjson", func(t *testing.T) {
		var got []byte
		for _, r := range extendedResults {
			got, _ = appendLine(got, &r, maxLine)
		}
		if diff := cmp.Diff(vector(t, "find-extended-ndjson"), string(got)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	})

	t.Run("full read again", func(t *testing.T) {
		// All but the binary context ID, which JSON has damaged, survives.
		var got ProviderInfo
		if err := json.Unmarshal([]byte(vector(t, "provider-info-full")), &got); err != nil {
			t.Fatal(err)
		}
		full.ExtendedProviders.Contextual[1].ContextID = "\x00\ufffd\ufffda"
		if diff := cmp.Diff(full, got, compare); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	})
}

func TestProviderInfoMetadatasHaveTheLengthOfProviders(t *testing.T) {
	info := ProviderInfo{AddrInfo: provider, ExtendedProviders: &ExtendedProviders{
		Providers:  []peer.AddrInfo{extended1, extended2},
		Metadatas:  [][]byte{gateway},
		Contextual: []ContextualExtendedProviders{{Metadatas: [][]byte{gateway}}},
	}}
	b, err := json.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		ExtendedProviders struct {
			Metadatas  []any
			Contextual []struct{ Providers, Metadatas []any }
		}
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]any{"oBIA", nil}, got.ExtendedProviders.Metadatas); diff != "" {
		t.Error(diff)
	}
	if c := got.ExtendedProviders.Contextual[0]; c.Providers == nil || c.Metadatas == nil || len(c.Metadatas) != 0 {
		t.Errorf("contextual set: %+v, want empty lists", c)
	}
	short := `{"AddrInfo":{"ID":"` + provider.ID.String() + `"},"ExtendedProviders":{"Providers":[{"ID":"` + extended1.ID.String() + `"},{"ID":""}],"Metadatas":null}}`
	var read ProviderInfo
	if err := json.Unmarshal([]byte(short), &read); err != nil {
		t.Fatal(err)
	}
	if xp := read.ExtendedProviders; len(xp.Providers) != 1 || len(xp.Metadatas) != 1 {
		t.Errorf("read: %+v", xp)
	}
}

func TestProviderInfoReadsTolerantly(t *testing.T) {
	id := `"AddrInfo":{"ID":"` + provider.ID.String() + `","Addrs":["/ip4/203.0.113.7/tcp/24001","/notaprotocol/1"]}`
	tests := []struct{ name, body, err string }{
		{"unknown address left out", `{` + id + `}`, ""},
		{"nulls", `{` + id + `,"LastAdvertisement":null,"Publisher":null,"ExtendedProviders":null,"FrozenAt":null,"LastAdvertisementTime":null}`, ""},
		{"unknown field", `{` + id + `,"Future":[1]}`, ""},
		{"publisher without ID", `{` + id + `,"Publisher":{"ID":"","Addrs":null}}`, ""},
		{"time that is none", `{` + id + `,"LastAdvertisementTime":"yesterday"}`, ""},
		{"no peer ID", `{}`, "provider record without peer ID"},
		{"bad peer ID", `{"AddrInfo":{"ID":"nonsense"}}`, "failed to parse peer ID"},
		{"frozen at no time", `{` + id + `,"FrozenAtTime":"yesterday"}`, "is not a time"},
		{"bad CID", `{` + id + `,"FrozenAt":{"/":"zzz"}}`, "invalid cid"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got ProviderInfo
			err := json.Unmarshal([]byte(test.body), &got)
			if test.err != "" {
				wantErr(t, err, test.err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(ProviderInfo{AddrInfo: provider}, got, compare); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}
