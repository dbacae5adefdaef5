"""2  A changed row becomes the names of what is stale. Decides; does no I/O.

What is written
    document     rule files become a ``RuleSet``; all that is wrong in them at once, with its places
    schema       what a file may hold; ``table_names``; ``suggestions``: what people call it who know another tool
    assembly     one rule of a file becomes a ``Rule`` (``rule``), with its coarse form (``derivation``)
    lints/       what can be used, and is hardly meant
    markdown     rule files that stand in pages
The two languages
    template     ``user:{id}``, with ``filters``; ``template_advice``, ``written`` and ``globs`` help
    condition/   ``status = 'published'``
In the stream
    engine       the rules in force: binds relations, gives coarse forms
    compiler/    one generated function per relation (``reading`` the bytes of a row, ``namespace`` of its objects)
    coarse       what is dropped when it cannot be told exactly; ``covering``: many CDN tags become few
    lookup       what is asked of the database, by ``lookup_sql``
    explicit     names that an application invalidates itself
For people
    explain      what each rule does with one row, by the functions of the stream; ``guessing`` types, ``rows`` as JSON
    testing      runs ``inline_tests``; ``reasons`` say why one failed
    inverse      which rules can drop a name
"""
