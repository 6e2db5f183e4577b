//! The symbols that `extend_for_reasoning` adds by default.
//!
//! No ASCII operators: vocabularies have them, with their runs, and adding them lengthens text.
//! Where a LaTeX command is the start of another common one (`\\in`, `\\int`), both are listed, so
//! that the longer wins.

/// Logic, sets, relations, arrows, brackets, number sets, Greek, super- and subscripts.
pub(crate) const UNICODE_SYMBOLS: &str = "\
    ¬ ± × ÷ · ∀ ∁ ∂ ∃ ∄ ∅ ∆ ∇ ∈ ∉ ∊ ∋ ∌ ∍ ∎ ∏ ∐ ∑ − ∓ ∔ ∕ ∖ ∗ ∘ ∙ √ ∛ ∜ ∝ ∞ ∟ ∠ ∡ ∢ ∣ ∤ ∥ ∦ \
    ∧ ∨ ∩ ∪ ∫ ∬ ∭ ∮ ∯ ∰ ∴ ∵ ∶ ∷ ∸ ∹ ∺ ∻ ∼ ∽ ∿ ≀ ≁ ≂ ≃ ≄ ≅ ≆ ≇ ≈ ≉ ≊ ≋ ≌ ≍ ≎ ≏ ≐ ≑ ≒ ≓ ≔ ≕ ≖ \
    ≗ ≘ ≙ ≚ ≛ ≜ ≝ ≞ ≟ ≠ ≡ ≢ ≣ ≤ ≥ ≦ ≧ ≨ ≩ ≪ ≫ ≬ ≮ ≯ ≰ ≱ ≲ ≳ ≶ ≷ ≺ ≻ ≼ ≽ ≾ ≿ ⊀ ⊁ ⊂ ⊃ ⊄ ⊅ ⊆ ⊇ \
    ⊈ ⊉ ⊊ ⊋ ⊌ ⊍ ⊎ ⊏ ⊐ ⊑ ⊒ ⊓ ⊔ ⊕ ⊖ ⊗ ⊘ ⊙ ⊚ ⊛ ⊞ ⊟ ⊠ ⊡ ⊢ ⊣ ⊤ ⊥ ⊦ ⊧ ⊨ ⊩ ⊪ ⊫ ⊬ ⊭ ⊮ ⊯ ⊲ ⊳ ⊴ ⊵ ⊸ ⊹ \
    ⊻ ⊼ ⊽ ⊿ ⋀ ⋁ ⋂ ⋃ ⋄ ⋅ ⋆ ⋈ ⋉ ⋊ ⋍ ⋎ ⋏ ⋐ ⋑ ⋔ ⋘ ⋙ ⋮ ⋯ ⋱ ← ↑ → ↓ ↔ ↕ ↛ ↝ ↞ ↠ ↣ ↦ ↪ ⇋ ⇌ ⇐ ⇑ ⇒ ⇓ \
    ⇔ ⇍ ⇏ ⇎ ⇝ ⟵ ⟶ ⟷ ⟸ ⟹ ⟺ ⟼ ⌈ ⌉ ⌊ ⌋ ⟦ ⟧ ⟨ ⟩ ⟪ ⟫ ‖ ′ ″ ‴ ⟂ ⟘ ⟙ ⨀ ⨁ ⨂ ⨆ ⨯ ⩽ ⩾ ⪯ ⪰ □ ◇ ■ ▷ ◁ △ \
    ▽ ★ ✓ ✗ † ℂ ℍ ℕ ℙ ℚ ℝ ℤ ℵ ℏ ℓ ℘ ℜ ℑ 𝔸 𝔹 𝔻 𝔼 𝔽 α β γ δ ε ζ η θ ι κ λ μ ν ξ π ρ σ τ υ φ χ \
    ψ ω ϵ ϑ ϕ ϖ ϱ ς Γ Δ Θ Λ Ξ Π Σ Φ Ψ Ω ⁰ ⁴ ⁵ ⁶ ⁷ ⁸ ⁹ ⁺ ⁻ ⁼ ⁽ ⁾ ⁿ ⁱ ₀ ₁ ₂ ₃ ₄ ₅ ₆ ₇ ₈ ₉ ₊ ₋ \
    ₌ ₍ ₎ ₙ ₘ ₖ ᵢ ⱼ";

/// LaTeX commands, without their backslash.
pub(crate) const LATEX_COMMANDS: &str = "\
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu \
    nu xi pi varpi rho varrho sigma varsigma tau upsilon phi varphi chi psi omega Gamma \
    Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega aleph hbar ell Re Im partial nabla \
    infty emptyset varnothing forall exists nexists neg lnot land lor wedge vee bigwedge \
    bigvee oplus ominus otimes oslash odot bigoplus bigotimes top bot vdash dashv models \
    vDash Vdash in notin ni subset subseteq subsetneq supset supseteq supsetneq cup cap \
    bigcup bigcap setminus complement mathbb mathcal mathbf mathrm mathfrak mathsf mathit \
    mathscr le leq leqslant ge geq geqslant ne neq ll gg lt gt equiv cong sim simeq approx \
    propto prec succ preceq succeq mid nmid parallel perp asymp doteq pm mp times div cdot \
    cdots ldots dots vdots ddots ast star circ bullet sqrt frac dfrac tfrac cfrac binom \
    dbinom tbinom sum prod coprod int iint iiint oint lim limsup liminf sup inf max min arg \
    det dim ker gcd lcm deg exp log ln lg sin cos tan cot sec csc arcsin arccos arctan sinh \
    cosh tanh mod bmod pmod Pr to gets mapsto implies iff impliedby rightarrow leftarrow \
    leftrightarrow Rightarrow Leftarrow Leftrightarrow longrightarrow longleftarrow \
    Longrightarrow Longleftarrow Longleftrightarrow longmapsto hookrightarrow uparrow \
    downarrow xrightarrow rightharpoonup rightleftharpoons left right big Big bigg Bigg bigl \
    bigr Bigl Bigr langle rangle lfloor rfloor lceil rceil lvert rvert lVert rVert vert Vert \
    overline underline hat widehat tilde widetilde bar vec dot ddot overrightarrow overbrace \
    underbrace overset underset stackrel boxed text textbf textit textrm operatorname limits \
    quad qquad begin end label ref cite tag angle triangle square diamond blacksquare Box \
    therefore because prime dagger ddagger sharp flat natural backslash displaystyle not \
    mathop phantom hspace vspace hline item cancel pmatrix";
