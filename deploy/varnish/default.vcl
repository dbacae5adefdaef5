# A small complete VCL: one origin, purged by tag. Start from it, or include invalidator.vcl in your own.
vcl 4.1;

include "./invalidator.vcl";

backend default {
    .host = "origin";
    .port = "8080";
}

sub vcl_backend_response {
    # How long a soft-purged or expired response may still be served while a new one is fetched.
    set beresp.grace = 60s;
}

sub vcl_deliver {
    if (obj.hits > 0) {
        set resp.http.X-Cache = "HIT";
    } else {
        set resp.http.X-Cache = "MISS";
    }
}
